"""Proof by pong: what is proven, what a reconnect gets, and what must not come twice."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_launcher.keeper.serve.clients.plain import PING_ENTRIES, Lost, Mark, PlainStream
from holdfast_protocol.log import LogIndex

N1, N2 = b"nonce--1", b"nonce--2"


@dataclass
class FakeLog:
    """A LogReader whose entries are their own seq."""

    index: LogIndex = field(default_factory=LogIndex)
    marks: dict[int, Mark] = field(default_factory=dict)
    open_inputs: set[int] = field(default_factory=set)

    def append(self, audience: str | None = None, mark: Mark | None = None) -> int:
        seq = self.index.append(8, audience)
        if mark is not None:
            self.marks[seq] = mark
        return seq

    def read(self, seq: int, offset: int = 0, length: int | None = None) -> bytes:
        return b"%08d" % seq

    def stream(self) -> PlainStream:
        return PlainStream(
            "s", self, mark_of=self.marks.get, input_open=self.open_inputs.__contains__
        )


def begin() -> tuple[FakeLog, PlainStream]:
    log = FakeLog()
    return log, log.stream()


def written(stream: PlainStream) -> list[int]:
    found = []
    while (entry := stream.next_entry()) is not None:
        assert not isinstance(entry, Lost)
        found.append(int(entry))
    return found


def prove(stream: PlainStream) -> None:
    while (ping := stream.take_ping()) is not None:
        stream.pong(ping)


def test_a_new_session_starts_at_the_head() -> None:
    log = FakeLog()
    log.append()
    stream = log.stream()
    stream.attach(N1)
    assert written(stream) == []
    log.append()
    assert written(stream) == [2]


def test_a_reconnect_is_replayed_from_the_last_proven_entry() -> None:
    log, stream = begin()
    stream.attach(N1)
    log.append()
    log.append()
    written(stream)
    prove(stream)
    assert stream.proven == 2
    log.append()
    log.append("other")
    log.append("s")
    assert written(stream) == [3, 5]
    assert stream.take_ping() is not None  # its pong never comes
    stream.detach()
    stream.attach(N2)
    assert written(stream) == [3, 5]


def test_foreign_and_stale_pongs_prove_nothing() -> None:
    log, stream = begin()
    stream.attach(N1)
    log.append()
    written(stream)
    ping = stream.take_ping()
    assert ping is not None
    for foreign in (b"", b"hello", ping[:-1], N2 + ping[8:], N1 + (9).to_bytes(8, "little")):
        assert stream.pong(foreign) is None
    stream.detach()
    stream.attach(N2)
    assert stream.pong(ping) is None, "a pong of an older connection"
    assert stream.proven == 0


def test_the_latest_pong_proves_all_before_it() -> None:
    log, stream = begin()
    stream.attach(N1)
    pings = []
    for _ in range(3):
        for _ in range(PING_ENTRIES):
            log.append()
        written(stream)
        pings.append(stream.take_ping())
    assert None not in pings
    assert pings[2] is not None
    assert stream.pong(pings[2]) == 3 * PING_ENTRIES
    assert pings[0] is not None
    assert stream.pong(pings[0]) is None


def test_one_ping_is_out_at_a_time_unless_much_was_written() -> None:
    log, stream = begin()
    stream.attach(N1)
    log.append()
    written(stream)
    first = stream.take_ping()
    assert first is not None
    log.append()
    written(stream)
    assert stream.take_ping() is None
    assert stream.pong(first) == 1
    assert stream.take_ping() is not None, "what was written since is asked for now"


def test_who_closes_after_restarting_starts_behind_it() -> None:
    """JupyterLab connects again because of it; told so again, it would never stop."""
    log, stream = begin()
    stream.attach(N1)
    log.append()
    log.append(mark=Mark.LIFECYCLE)
    assert written(stream) == [1, 2]
    stream.detach(left=True)
    log.append()
    stream.attach(N2)
    assert written(stream) == [3]


def test_who_was_cut_off_is_told_of_the_restart_again() -> None:
    """It was written into a connection that broke: with it, the answers that a kernel's end gives
    would be lost without a word."""
    log, stream = begin()
    stream.attach(N1)
    log.append("s")
    log.append(mark=Mark.LIFECYCLE)
    assert written(stream) == [1, 2]
    stream.detach()
    stream.attach(N2)
    assert written(stream) == [1, 2]
    ping = stream.take_ping()
    assert ping is not None
    stream.pong(ping)
    stream.detach()
    stream.attach(N1)
    assert written(stream) == []


def test_an_absent_client_gets_the_restart_that_it_has_not_seen() -> None:
    log, stream = begin()
    stream.attach(N1)
    stream.detach()
    log.append()
    log.append(mark=Mark.LIFECYCLE)
    stream.attach(N2)
    assert written(stream) == [1, 2]


def test_an_input_request_comes_again_only_while_it_waits() -> None:
    log, stream = begin()
    stream.attach(N1)
    log.append("s", Mark.INPUT)
    log.open_inputs.add(1)
    log.append()
    assert written(stream) == [1, 2]
    stream.attach(N2)
    assert written(stream) == [1, 2], "nobody has answered it yet"
    log.open_inputs.clear()
    stream.attach(N1)
    assert written(stream) == [2]


def test_a_loss_is_told_before_what_is_left() -> None:
    log, stream = begin()
    stream.attach(N1)
    for _ in range(4):
        log.append()
    log.index.drop_oldest(16, "log full")
    lost = stream.next_entry()
    assert isinstance(lost, Lost)
    assert (lost.loss.first, lost.loss.last, lost.loss.count) == (1, 2, 2)
    assert written(stream) == [3, 4]


STEP = st.sampled_from(
    ["all", "mine", "other", "restarting", "write", "ping", "pong", "cut", "leave"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=60))
def test_nothing_is_lost_with_a_connection(steps: list[str]) -> None:
    """Against a network at its worst: what no pong has proven is lost when a connection breaks,
    and has arrived when the client closes it. In the end everything has arrived, and no
    ``restarting`` twice."""
    log, stream = begin()
    arrived: list[int] = []
    on_the_way: list[int] = []
    wanted: list[int] = []
    pings: list[bytes] = []
    stream.attach(N1)
    for number, step in enumerate(steps):
        if step in ("all", "mine", "other", "restarting"):
            audience = {"mine": "s", "other": "o"}.get(step)
            seq = log.append(audience, Mark.LIFECYCLE if step == "restarting" else None)
            if step != "other":
                wanted.append(seq)
        elif step == "write":
            on_the_way += written(stream)
        elif step == "ping":
            ping = stream.take_ping()
            pings += [] if ping is None else [ping]
        elif step == "pong" and pings:
            stream.pong(pings.pop(0))
            arrived += [seq for seq in on_the_way if seq <= stream.proven]
            on_the_way = [seq for seq in on_the_way if seq > stream.proven]
        elif step in ("cut", "leave"):
            arrived += on_the_way if step == "leave" else []
            on_the_way.clear()
            stream.detach(left=step == "leave")
            stream.attach(number.to_bytes(8, "little"))
            pings.clear()
        stream.check_invariants()
        log.index.check_invariants()
        # what is acknowledged has arrived
        assert all(seq in arrived for seq in wanted if seq <= stream.proven)
    arrived += on_the_way + written(stream)
    assert sorted(set(arrived)) == wanted
    told = [seq for seq in arrived if seq in log.marks]
    assert len(told) == len(set(told))
