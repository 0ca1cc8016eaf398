"""The log's index: numbering, audiences, what may go, and that no loss is silent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_protocol.errors import InvalidState
from holdfast_protocol.log import LogIndex


def test_numbers_from_one_and_finds_by_audience() -> None:
    log = LogIndex()
    log.add_session("a")
    log.add_session("b")
    assert [log.append(1), log.append(2, "a"), log.append(3, "b"), log.append(4)] == [1, 2, 3, 4]
    assert log.next_for("a", 0).seq == 1
    assert log.next_for("a", 2).seq == 4
    assert log.next_for("b", 1).seq == 3
    assert log.next_for("b", 4) is None
    log.append(5, "a")
    assert log.next_for("b", 4) is None
    assert log.next_for("a", 4).seq == 5


def test_trims_only_what_every_session_has_acknowledged() -> None:
    log = LogIndex()
    for name in "ab":
        log.add_session(name)
    for _ in range(4):
        log.append(10)
    log.acknowledge("a", 4)
    assert log.trim() is None
    log.acknowledge("b", 2)
    dropped = log.trim()
    assert dropped is not None
    assert (dropped.last, dropped.entries, dropped.size) == (2, 2, 20)
    assert log.floor == 2
    assert log.size == 20


def test_entries_of_others_count_as_acknowledged() -> None:
    log = LogIndex()
    log.add_session("a")
    log.add_session("b")
    log.append(1, "a")
    log.append(1, "a")
    log.acknowledge("a", 2)
    assert log.trim() is not None
    assert log.floor == 2


def test_without_a_session_nothing_is_trimmed() -> None:
    log = LogIndex()
    log.append(1)
    assert log.trim() is None


def test_a_session_away_too_long_stops_holding_and_is_told() -> None:
    log = LogIndex()
    log.add_session("here")
    log.add_session("away")
    for _ in range(3):
        log.append(1)
    log.acknowledge("here", 3)
    log.set_holding("away", False)
    assert log.trim() is not None
    loss = log.loss_for("away", 0)
    assert loss is not None
    assert (loss.first, loss.last, loss.count) == (1, 3, 3)
    assert log.loss_for("here", 3) is None
    log.check_invariants()


def test_drop_oldest_tells_exactly_who_lost() -> None:
    log = LogIndex()
    log.add_session("a")
    log.add_session("b")
    log.append(10, "a")
    log.append(10)
    log.append(10, "b")
    dropped = log.drop_oldest(15, "log full")
    assert dropped is not None
    assert dropped.last == 2
    for_a, for_b = log.loss_for("a", 0), log.loss_for("b", 0)
    assert for_a is not None
    assert for_b is not None
    assert (for_a.count, for_a.last) == (2, 2)
    assert (for_b.count, for_b.first) == (1, 2)
    assert log.loss_for("a", 2) is None
    log.acknowledge("a", 2)
    assert log.loss_for("a", 0) is None


def test_a_slow_reader_is_told_of_each_loss_once() -> None:
    """It acknowledges nothing in between: what was told, and what was sent, is not lost again."""
    log = LogIndex()
    log.add_session("slow")
    for _ in range(10):
        log.append(1)
    log.drop_oldest(4, "log full")
    told = log.loss_for("slow", 0)
    assert told is not None
    assert (told.first, told.last, told.count) == (1, 4, 4)
    sent = 6
    log.drop_oldest(5, "log full")
    told = log.loss_for("slow", sent)
    assert told is not None
    assert (told.first, told.last, told.count) == (7, 9, 3)


def test_a_loss_that_was_not_told_yet_holds_nothing_back() -> None:
    log = LogIndex()
    log.add_session("reader")
    log.add_session("absent")
    log.append(10)
    assert log.drop_oldest(10, "log full") is not None
    log.append(10, "reader")
    log.acknowledge("reader", 2)
    assert log.trim() is not None
    assert log.floor == 2
    loss = log.loss_for("absent", 0)
    assert loss is not None
    assert (loss.first, loss.last, loss.count) == (1, 1, 1)


def test_a_number_of_a_name_that_left_is_not_the_next_ones_past() -> None:
    log = LogIndex()
    log.add_session("reader")
    log.append(1, "old")
    log.append(1, "reader")
    log.acknowledge("reader", 2)
    log.trim()
    log.append(1, "new")
    log.append(2, "old")
    assert log.next_for("new", 0).seq == 3
    assert log.next_for("old", 0).seq == 4
    log.check_invariants()


@pytest.mark.parametrize("seq", [-1, 4, 99])
def test_an_acknowledgement_ahead_or_back_is_misuse(seq: int) -> None:
    log = LogIndex()
    log.add_session("a")
    for _ in range(3):
        log.append(1)
    log.acknowledge("a", 1)
    with pytest.raises(InvalidState):
        log.acknowledge("a", seq)


steps = st.one_of(
    st.tuples(st.just("append"), st.sampled_from([None, "a", "b", "c"]), st.integers(0, 50)),
    st.tuples(st.just("ack"), st.sampled_from(["a", "b"]), st.integers(0, 20)),
    st.tuples(st.just("trim"), st.none(), st.none()),
    st.tuples(st.just("drop"), st.none(), st.integers(1, 120)),
    st.tuples(st.just("hold"), st.sampled_from(["a", "b"]), st.booleans()),
    st.tuples(st.just("read"), st.sampled_from(["a", "b"]), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=60))
def test_no_loss_is_silent(script: list[tuple[str, str | None, int | bool | None]]) -> None:
    """Whatever happens, a reader that follows next_for and loss_for sees or is told of all."""
    log = LogIndex()
    history: list[str | None] = []
    position = {"a": 0, "b": 0}
    seen: dict[str, set[int]] = {"a": set(), "b": set()}
    for name in position:
        log.add_session(name)
    for kind, who, value in script:
        if kind == "append":
            log.append(int(value or 0), who)
            history.append(who)
        elif kind == "trim":
            log.trim()
        elif kind == "drop":
            log.drop_oldest(int(value or 0), "full")
        elif kind == "hold":
            log.set_holding(str(who), bool(value))
        elif kind == "ack":
            seq = min(log.acknowledged(str(who)) + int(value or 0), position[str(who)])
            log.acknowledge(str(who), seq)
        else:
            _read_one(log, str(who), position, seen)
        log.check_invariants()
    for name in position:
        while _read_one(log, name, position, seen):
            pass
        wanted = {n for n, who in enumerate(history, 1) if who in (None, name)}
        assert wanted <= seen[name]


def _read_one(
    log: LogIndex, name: str, position: dict[str, int], seen: dict[str, set[int]]
) -> bool:
    loss = log.loss_for(name, position[name])
    if loss is not None:
        seen[name].update(range(position[name] + 1, loss.last + 1))
        position[name] = loss.last
        return True
    entry = log.next_for(name, position[name])
    if entry is None:
        return False
    seen[name].add(entry.seq)
    position[name] = entry.seq
    return True
