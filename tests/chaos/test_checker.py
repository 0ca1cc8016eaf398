"""A clean history passes; each way to break it is found, and called by its name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.chaos.archive import HISTORY, SIDE, TRACES, read_archive
from support.chaos.checker.judge import judge
from support.chaos.history import (
    Acted,
    Began,
    Event,
    Fenced,
    Injected,
    Ran,
    Received,
    Recorder,
    Sent,
    Unsent,
    decode,
    encode,
)

from .mutations import MUTATIONS, Mutation
from .synthetic import clean

SEEDS = st.integers(min_value=0, max_value=1 << 30)
#: The same examples each time: what a seed finds on somebody else's machine helps nobody there.
FEW = settings(max_examples=12, deadline=None, derandomize=True, database=None)
FEWER = settings(FEW, max_examples=3)


def rules(events: list[Event]) -> set[str]:
    return {violation.rule for violation in judge(events).violations}


@FEW
@given(seed=SEEDS, shims=st.integers(0, 3), plains=st.integers(0, 3), cells=st.integers(1, 12))
def test_a_clean_history_passes(seed: int, shims: int, plains: int, cells: int) -> None:
    verdict = judge(clean(seed, shims=shims, plains=plains, cells=cells))
    assert verdict.holds, verdict.violations


@pytest.mark.parametrize("mutation", MUTATIONS, ids=repr)
@FEWER
@given(seed=SEEDS)
def test_each_mutation_is_found(mutation: Mutation, seed: int) -> None:
    """And nothing but a lie of the history makes the checker say so: it passed before."""
    events = clean(seed, cells=8)
    assert mutation.rule in rules(mutation.change(list(events), random.Random(seed)))


@FEWER
@given(seed=SEEDS)
def test_every_event_survives_its_line(seed: int) -> None:
    for event in clean(seed, cells=2):
        assert decode(encode(event)) == event


@pytest.mark.parametrize("line", ["", "{}", '{"event": "Nothing"}', '{"event": "Ended"}', "[1]"])
def test_a_line_that_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own error is one, too
        decode(line)


def test_an_archive_is_read_back(tmp_path: Path) -> None:
    """Side files and traces count as much as what clients saw."""
    events = clean(7)
    recorder = Recorder(tmp_path / HISTORY)
    (tmp_path / TRACES).mkdir()
    with (
        (tmp_path / SIDE).open("w") as side,
        (tmp_path / TRACES / "keeper-1.jsonl").open("w") as trace,
    ):
        for event in events:
            if isinstance(event, Ran):
                side.write(f"{event.session} {event.cell} {event.kernel} {event.pid} {event.at}\n")
            elif isinstance(event, Fenced | Acted):
                trace.write(encode(event) + "\n")
            else:
                recorder.write(event)
    recorder.close()
    verdict = judge(read_archive(tmp_path))
    assert verdict == judge(events)
    assert verdict.holds


def test_a_gap_that_a_fault_explains_is_no_violation() -> None:
    """Marked in the cell, after its keeper was killed: the promise allows exactly this."""
    events = clean(3)
    lost = next(e for e in events if isinstance(e, Received) and e.kind == "stream")
    kernel = next(e.kernel for e in events if isinstance(e, Sent) and e.msg_id == lost.parent)
    said = Received(
        at=lost.at,
        session=lost.session,
        msg_id=lost.msg_id,
        parent=lost.parent,
        kind="stream",
        stream="stderr",
        text="holdfast: 1 messages lost: the keeper was replaced\n",
    )
    fault = Injected(at=lost.at, fault=99, kind="keeper-kill", target=0, kernel=kernel)
    marked: list[Event] = [said if event is lost else event for event in events]
    assert rules([*marked, fault]) == set()
    assert rules([*(e for e in events if e is not lost), fault]) == {"complete"}


def test_a_plain_cell_that_never_arrived_needs_no_answer_and_must_not_have_run() -> None:
    events = clean(5, shims=0, plains=1)
    sent = [event for event in events if isinstance(event, Sent)][-1]
    mine = [e for e in events if isinstance(e, Received) and e.parent == sent.msg_id]
    left: list[Event] = [event for event in events if event not in mine]
    unsent = Unsent(at=sent.at, session=sent.session, cell=sent.cell)
    ran = next(e for e in events if isinstance(e, Ran) and e.cell == sent.cell)
    assert "answered" in rules([*left, unsent])
    assert rules([*(event for event in left if event is not ran), unsent]) == set()


def test_the_figures_name_seed_and_faults() -> None:
    events = clean(11, plains=3, cells=10)
    shown = judge(events).figures
    assert shown["seed"] == str(next(e for e in events if isinstance(e, Began)).seed)
    assert "proxy-kill" in shown["faults"]
