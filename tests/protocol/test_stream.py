"""Both ends of the stream against each other, over a network that cuts anywhere."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast_protocol.errors import CloseCode, InvalidState, SendBufferFull, StreamError
from holdfast_protocol.frames import (
    CHUNK_BYTES,
    NO_EPOCH,
    Ack,
    Bye,
    ByeReason,
    ClientData,
    Gap,
    KeeperData,
    Resume,
    Resumed,
    decode,
)
from holdfast_protocol.log import LogIndex
from holdfast_protocol.stream.client import (
    ByeReceived,
    ClientStream,
    Delivered,
    EpochChanged,
    GapSeen,
    Predecessor,
    StreamResumed,
)
from holdfast_protocol.stream.keeper import Accepted, Attached, Refused, SessionStream
from holdfast_protocol.stream.state import ClientState

EPOCH = bytes(range(16))
OTHER_EPOCH = bytes(range(16, 32))


class MemoryLog:
    """A LogReader that holds its bytes in a dictionary."""

    def __init__(self) -> None:
        self.index = LogIndex()
        self._bytes: dict[int, bytes] = {}

    def append(self, data: bytes, audience: str | None = None) -> int:
        seq = self.index.append(len(data), audience)
        self._bytes[seq] = data
        return seq

    def read(self, seq: int) -> bytes:
        if self.index.entry(seq) is None:
            raise KeyError(seq)
        return self._bytes[seq]

    def read_part(self, seq: int, offset: int, length: int) -> list[memoryview]:
        return [memoryview(self.read(seq))[offset : offset + length]]


def connected(log: MemoryLog, client: ClientStream, keeper: SessionStream) -> list[object]:
    """Connect and run the handshake; the client's events."""
    resume = decode(client.connect())
    assert isinstance(resume, Resume)
    attached = keeper.attach(resume)
    assert isinstance(attached, Attached)
    return [event for frame in attached.frames for event in client.receive(frame)]


def pair() -> tuple[MemoryLog, ClientStream, SessionStream]:
    log = MemoryLog()
    return log, ClientStream(b"c" * 16), SessionStream("s", log, epoch=EPOCH)


def test_a_new_session_starts_at_the_head() -> None:
    log, client, keeper = pair()
    log.append(b"before")
    connected(log, client, keeper)
    log.append(b"after")
    frame = keeper.next_frame()
    assert frame is not None
    assert client.receive(frame) == [Delivered(2, b"after")]


def test_messages_sent_while_away_arrive_once_and_in_order() -> None:
    log, client, keeper = pair()
    for text in (b"one", b"two"):
        client.send(text)
    connected(log, client, keeper)
    (frame,) = client.next_frames()
    assert keeper.receive(frame) == [Accepted(1, b"one"), Accepted(2, b"two")]
    client.disconnected()  # the ack is lost
    keeper.detach()
    client.send(b"three")
    connected(log, client, keeper)
    (frame,) = client.next_frames()
    assert keeper.receive(frame) == [Accepted(3, b"three")]
    ack = keeper.take_ack()
    assert ack is not None
    client.receive(ack)
    assert client.pending_bytes == 0


def test_a_doubled_frame_is_dropped() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    client.send(b"one")
    (frame,) = client.next_frames()
    assert keeper.receive(frame) == [Accepted(1, b"one")]
    assert keeper.receive(frame) == []


def test_a_long_entry_resumes_inside_itself() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    data = bytes(3 * CHUNK_BYTES + 7)
    log.append(data)
    frame = keeper.next_frame()
    assert frame is not None
    assert client.receive(frame) == []
    lost = keeper.next_frame()
    assert lost is not None
    client.disconnected()
    keeper.detach()
    connected(log, client, keeper)
    rest = list(iter(keeper.next_frame, None))
    assert len(rest) == 3
    events = [event for frame in rest for event in client.receive(frame)]
    assert events == [Delivered(1, data)]


def test_a_long_client_message_starts_again() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    data = bytes(2 * CHUNK_BYTES + 1)
    client.send(data)
    first, *_ = client.next_frames()
    assert keeper.receive(first) == []
    client.disconnected()
    connected(log, client, keeper)
    events = [event for frame in client.next_frames() for event in keeper.receive(frame)]
    assert events == [Accepted(1, data)]


def test_a_gap_goes_before_anything_after_it() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    for n in range(4):
        log.append(b"%d" % n)
    log.index.drop_oldest(2, "log full")
    events = [event for frame in iter(keeper.next_frame, None) for event in client.receive(frame)]
    assert events == [GapSeen(1, 2, 2, "log full"), Delivered(3, b"2"), Delivered(4, b"3")]
    client.consumed(4)
    ack = client.take_ack()
    assert ack is not None
    keeper.receive(ack)
    log.index.trim()
    assert log.index.floor == 4


def test_a_gap_swallows_a_half_received_entry() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    log.append(bytes(2 * CHUNK_BYTES))
    log.append(b"next")
    first = keeper.next_frame()
    assert first is not None
    client.receive(first)
    log.index.drop_oldest(1, "disk failed")
    events = [event for frame in iter(keeper.next_frame, None) for event in client.receive(frame)]
    assert events == [GapSeen(1, 1, 1, "disk failed"), Delivered(2, b"next")]


def test_a_new_client_id_replays_from_the_acknowledged_and_numbers_on() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    client.send(b"one")
    keeper.receive(client.next_frames()[0])
    for n in range(3):
        log.append(b"%d" % n)
    for frame in iter(keeper.next_frame, None):
        client.receive(frame)
    client.consumed(1)
    keeper.receive(client.take_ack() or b"")
    successor = ClientStream(b"d" * 16)
    successor.send(b"two")
    connected(log, successor, keeper)
    assert successor.last_seq == 2
    assert keeper.receive(successor.next_frames()[0]) == [Accepted(2, b"two")]
    frame = keeper.next_frame()
    assert frame is not None
    assert successor.receive(frame) == [Delivered(2, b"1"), Delivered(3, b"2")]


def test_a_replaced_client_and_an_older_attempt_are_gone() -> None:
    log, client, keeper = pair()
    stale = decode(client.connect())
    client.disconnected()
    connected(log, client, keeper)
    assert isinstance(stale, Resume)
    refused = keeper.attach(stale)
    assert isinstance(refused, Refused)
    assert refused.close_code is CloseCode.GONE
    connected(log, ClientStream(b"d" * 16), keeper)
    client.disconnected()
    again = decode(client.connect())
    assert isinstance(again, Resume)
    refused = keeper.attach(again)
    assert isinstance(refused, Refused)
    (event,) = client.receive(refused.bye)
    assert isinstance(event, ByeReceived)
    assert client.state is ClientState.CLOSED
    with pytest.raises(InvalidState):
        client.send(b"x")


@pytest.mark.parametrize("seq", [0, 1, 9])
def test_a_new_client_cannot_claim_a_place_that_the_session_never_had(seq: int) -> None:
    """Below what is acknowledged it would miss entries unseen, above what is there as well."""
    log, client, keeper = pair()
    connected(log, client, keeper)
    for text in (b"one", b"two", b"three"):
        log.append(text)
    while (frame := keeper.next_frame()) is not None:
        client.receive(frame)
    client.consumed(2)
    ack = client.take_ack()
    assert ack is not None
    keeper.receive(ack)
    log.index.trim()
    refused = keeper.attach(Resume(b"d" * 16, 1, EPOCH, seq))
    assert isinstance(refused, Refused)
    assert refused.close_code is CloseCode.POSITION
    assert keeper.client_id == b"c" * 16, "the session is still its client's"
    assert isinstance(keeper.attach(Resume(b"d" * 16, 1, EPOCH, 2)), Attached)


def test_a_successor_goes_on_where_its_predecessor_was() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    client.send(b"one")
    keeper.receive(client.next_frames()[0])
    for n in range(3):
        log.append(b"%d" % n)
    for frame in iter(keeper.next_frame, None):
        client.receive(frame)
    client.consumed(2)
    successor = ClientStream(b"d" * 16, predecessor=Predecessor(EPOCH, client.consumed_up_to))
    successor.send(b"two")
    assert connected(log, successor, keeper) == [StreamResumed(first=True)]
    assert (successor.accepted, successor.unacknowledged) == (1, (b"two",))
    assert keeper.receive(successor.next_frames()[0]) == [Accepted(2, b"two")]
    frame = keeper.next_frame()
    assert frame is not None
    assert successor.receive(frame) == [Delivered(3, b"2")], "what was used is not repeated"
    successor.disconnected()
    assert StreamResumed(first=False) in connected(log, successor, keeper)


def test_a_successor_learns_that_the_log_is_another_one() -> None:
    """Without a predecessor it would begin at the head, and miss what is there unseen."""
    log, _, _ = pair()
    log.append(b"said before the successor came")
    keeper = SessionStream("s", log, epoch=b"n" * 16)
    successor = ClientStream(b"d" * 16, predecessor=Predecessor(EPOCH, 57))
    successor.send(b"new")
    events = connected(log, successor, keeper)
    assert events[:2] == [EpochChanged(()), StreamResumed(first=True)]
    assert [type(event) for event in events[2:]] == [GapSeen]
    assert keeper.receive(successor.next_frames()[0]) == [Accepted(1, b"new")]
    frame = keeper.next_frame()
    assert frame is not None
    assert successor.receive(frame) == [Delivered(1, b"said before the successor came")]


def test_another_epoch_fails_what_was_not_acknowledged_and_replays_its_own_log() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    client.send(b"sent")
    keeper.receive(client.next_frames()[0])
    client.send(b"queued")
    client.disconnected()
    new_log = MemoryLog()
    new_keeper = SessionStream("s", new_log, epoch=OTHER_EPOCH)
    new_log.append(b"from the new log")
    events = connected(new_log, client, new_keeper)
    assert events[0] == EpochChanged((b"sent", b"queued"))
    assert GapSeen(0, 0, 0, "the keeper was replaced") in events
    assert client.next_frames() == []
    frame = new_keeper.next_frame()
    assert frame is not None
    assert client.receive(frame) == [Delivered(1, b"from the new log")]
    client.send(b"fresh")
    assert new_keeper.receive(client.next_frames()[0]) == [Accepted(1, b"fresh")]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Ack(1), CloseCode.ACK_AHEAD),
        (ClientData(2, (b"x",)), CloseCode.SEQ_SKIPPED),
        (Resume(b"c" * 16, 9), CloseCode.BAD_FRAME),
        (KeeperData(0, ((1, b"x"),)), CloseCode.BAD_FRAME),
    ],
)
def test_the_keeper_refuses_what_cannot_be(frame: Ack, code: CloseCode) -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    with pytest.raises(StreamError) as caught:
        keeper.receive(frame.encode())
    assert caught.value.close_code is code


def test_the_keeper_refuses_an_acknowledgement_that_goes_back() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    for _ in range(2):
        log.append(b"x")
    keeper.next_frame()
    keeper.receive(Ack(2).encode())
    with pytest.raises(StreamError) as caught:
        keeper.receive(Ack(1).encode())
    assert caught.value.close_code is CloseCode.ACK_BACKWARD


@pytest.mark.parametrize(
    "frame",
    [
        KeeperData(5, ((6, b"x"),)),
        Gap(3, 4, 2, "hole"),
        Ack(1),
        Resumed(EPOCH, 0, 0, 0),
        ClientData(1, (b"x",)),
    ],
)
def test_the_client_refuses_what_cannot_be(frame: KeeperData) -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    with pytest.raises(StreamError):
        client.receive(frame.encode())


def test_the_send_buffer_is_bounded_and_one_message_always_fits() -> None:
    client = ClientStream(b"c" * 16, limit_bytes=10)
    client.send(bytes(100))
    with pytest.raises(SendBufferFull):
        client.send(b"x")
    assert client.last_seq == 1


def test_bye_with_come_back_allows_the_next_dial() -> None:
    log, client, keeper = pair()
    connected(log, client, keeper)
    bye = Bye(ByeReason.DRAIN, come_back=True)
    assert client.receive(bye.encode()) == [ByeReceived(bye)]
    client.disconnected()
    connected(log, client, keeper)
    assert client.state is ClientState.LIVE


class TwoEnds(RuleBasedStateMachine):
    """Client and keeper with queues between them; any queue may be cut at any point."""

    @initialize()
    def begin(self) -> None:
        self.log = MemoryLog()
        self.client = ClientStream(b"c" * 16)
        self.keeper = SessionStream("s", self.log, epoch=EPOCH)
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.live = False
        self.generation = 0
        self.sent: list[bytes] = []
        self.kernel_got: list[bytes] = []
        self.seen: list[int] = []
        self.gone: set[int] = set()
        self.for_us: list[int] = []
        self.started_at = 0
        self.first_contact = True

    @precondition(lambda self: not self.live)
    @rule()
    def dial(self) -> None:
        self.up, self.down = deque([self.client.connect()]), deque()
        self.live = True
        self.attached = False

    @precondition(lambda self: self.live)
    @rule(keeper_notices=st.booleans())
    def cut(self, keeper_notices: bool) -> None:
        self.client.disconnected()
        self.live = False
        if keeper_notices:
            self.keeper.detach()

    @rule(size=st.sampled_from([1, 1, 1, 5, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 3]))
    def client_sends(self, size: int) -> None:
        message = len(self.sent).to_bytes(4, "big") + bytes(size)
        self.client.send(message)
        self.sent.append(message)

    @rule(
        size=st.sampled_from([1, 1, 1, 5, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 3]),
        audience=st.sampled_from([None, None, "s", "other"]),
    )
    def kernel_says(self, size: int, audience: str | None) -> None:
        seq = self.log.append(bytes(size), audience)
        if audience in (None, "s") and "s" in self.log.index.sessions:
            self.for_us.append(seq)

    @precondition(lambda self: self.live)
    @rule()
    def client_writes(self) -> None:
        frame = self.client.next_frame()
        if frame is not None:
            self.up.append(frame)

    @precondition(lambda self: self.live and self.attached)
    @rule(batch=st.sampled_from([1, 20, CHUNK_BYTES]))
    def keeper_writes(self, batch: int) -> None:
        frame = self.keeper.next_frame(batch)
        if frame is not None:
            self.down.append(frame)

    @precondition(lambda self: self.live and self.attached)
    @rule()
    def keeper_acks(self) -> None:
        ack = self.keeper.take_ack()
        if ack is not None:
            self.down.append(ack)

    @precondition(lambda self: self.live and self.up)
    @rule()
    def keeper_reads(self) -> None:
        data = self.up.popleft()
        if not self.attached:
            resume = decode(data)
            assert isinstance(resume, Resume)
            result = self.keeper.attach(resume)
            assert isinstance(result, Attached)
            self.down.extend(result.frames)
            self.attached = True
            return
        for event in self.keeper.receive(data):
            if isinstance(event, Accepted):
                self.kernel_got.append(event.message)

    @precondition(lambda self: self.live and self.down)
    @rule()
    def client_reads(self) -> None:
        for event in self.client.receive(self.down.popleft()):
            if isinstance(event, Delivered):
                self.seen.append(event.seq)
            elif isinstance(event, GapSeen):
                self.gone.update(range(event.first, event.last + 1))

    @rule(share=st.floats(0, 1))
    def application_consumes(self, share: float) -> None:
        self.client.consumed(int(self.client.position * share))
        if self.live and (ack := self.client.take_ack()) is not None:
            self.up.append(ack)

    @rule()
    def trim(self) -> None:
        self.log.index.trim()

    @rule(size=st.integers(1, 3 * CHUNK_BYTES))
    def log_overflows(self, size: int) -> None:
        self.log.index.drop_oldest(size, "log full")

    @invariant()
    def once_in_order(self) -> None:
        assert self.kernel_got == self.sent[: len(self.kernel_got)]
        assert self.seen == sorted(set(self.seen))
        self.log.index.check_invariants()
        self.client.check_invariants()
        self.keeper.check_invariants()

    @invariant()
    def complete_or_told(self) -> None:
        position = self.client.position
        wanted = {seq for seq in self.for_us if seq <= position}
        assert wanted <= set(self.seen) | self.gone

    def _unfinished(self) -> bool:
        under_way = bool(self.up or self.down) or not self.attached
        return under_way or self.client.has_more or self.keeper.has_more

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        if not self.live:
            self.dial()
        while self._unfinished():
            self.client_writes()
            if self.up:
                self.keeper_reads()
            if self.attached:
                self.keeper_writes(batch=CHUNK_BYTES)
                self.keeper_acks()
            while self.down:
                self.client_reads()
        assert self.kernel_got == self.sent
        assert set(self.for_us) <= set(self.seen) | self.gone
        self.once_in_order()


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_no_epoch_is_never_an_epoch_of_a_log() -> None:
    assert bytes(16) == NO_EPOCH
