"""The client's end of one session's stream: messages and frames in, events and frames out.

No I/O, no clock: the owner dials, hands every received frame to ``receive``, writes what
``next_frame`` yields and runs the timers. One ``ClientStream`` outlives any number of
connections. What it promises:

* *Once in, in order.* A message keeps its place until an ACK or RESUMED proves that the keeper
  accepted it; a reconnect sends again exactly what is not proven.
* *Complete out, in order, or a gap.* A DATA whose ``after`` is not our position is refused, so
  a hole cannot pass unseen.
* *Another epoch never inherits.* When the keeper comes back with another epoch, what was not
  acknowledged is handed back as failed and is not sent again.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ..errors import CloseCode, InvalidState, SendBufferFull, StreamError
from ..frames import (
    CHUNK_BYTES,
    NO_EPOCH,
    Ack,
    Bye,
    Chunk,
    ClientData,
    Gap,
    KeeperData,
    Resume,
    Resumed,
    decode,
)
from .client_events import (
    ByeReceived,
    Delivered,
    EpochChanged,
    Event,
    GapSeen,
    Predecessor,
    StreamResumed,
)
from .keeper import ACK_BYTES, ACK_MESSAGES
from .state import ClientEvent, ClientState, next_client_state

__all__ = [
    "ByeReceived",
    "ClientStream",
    "Delivered",
    "EpochChanged",
    "Event",
    "GapSeen",
    "Predecessor",
    "StreamResumed",
]

#: Unacknowledged bytes that a client holds before ``send`` refuses.
SEND_LIMIT_BYTES: Final = 256 * 1024 * 1024
#: A single entry longer than this many bytes is refused rather than assembled.
MAX_ENTRY_BYTES: Final = 2 << 30


class ClientStream:
    """One session at the client. All methods are synchronous and never block.

    ``client_id``: 16 random bytes, one per process and session. ``limit_bytes``: how much
    unacknowledged data ``send`` takes. ``predecessor``: of a session that another process had
    before. It makes a keeper with another log say so, where a client that names no epoch would
    begin at that log's head and never know what it missed. A keeper that refuses its position
    (4404) is to be asked again by a client without one: the session's own place will do.
    """

    def __init__(
        self,
        client_id: bytes,
        *,
        limit_bytes: int = SEND_LIMIT_BYTES,
        predecessor: Predecessor | None = None,
    ) -> None:
        if len(client_id) != len(NO_EPOCH):
            raise InvalidState(f"a client id has 16 bytes, not {len(client_id)}")
        self.client_id = client_id
        self.state = ClientState.IDLE
        self.epoch = NO_EPOCH
        self.attempt = 0
        self.position = 0
        self._predecessor = predecessor
        self._limit = limit_bytes
        # what we sent or want to send, from seq _first on; _unsent of them are still to go out
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._first = 1
        self._next = 1
        self._furthest = 0
        self._chunk_offset = 0
        # the pieces of one long entry that is not whole yet, and their bytes together
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._partial_seq = 0
        self._unconsumed: deque[tuple[int, int]] = deque()
        self._consumed = 0
        self._ack_sent = -1
        self._ack_messages = 0
        self._ack_bytes = 0

    def __repr__(self) -> str:
        return (
            f"<ClientStream {self.state.value} position={self.position} "
            f"pending={len(self._pending)} from {self._first} attempt={self.attempt}>"
        )

    @property
    def last_seq(self) -> int:
        """The seq of the newest message given to ``send`` (for ``Holdfast-After``); 0 if none.

        Before the first RESUMED the numbers are provisional, because the keeper may have
        accepted messages of an earlier client of this session.
        """
        return self._first + len(self._pending) - 1

    @property
    def numbered(self) -> bool:
        """Whether ``last_seq`` is final: the keeper has told us where our numbers begin."""
        return self.epoch != NO_EPOCH

    @property
    def accepted(self) -> int:
        """The highest seq that the keeper is known to have accepted of this session."""
        return self._first - 1

    @property
    def consumed_up_to(self) -> int:
        """The highest seq given to ``consumed``; a successor may begin there."""
        return self._consumed

    @property
    def unacknowledged(self) -> tuple[bytes, ...]:
        """The messages above ``accepted``, in order."""
        return tuple(self._pending)

    @property
    def pending_bytes(self) -> int:
        """Bytes sent or queued and not acknowledged."""
        return self._pending_bytes

    @property
    def has_more(self) -> bool:
        """Whether ``next_frame`` would yield one."""
        return self.state is ClientState.LIVE and self._next <= self.last_seq

    def connect(self) -> bytes:
        """A new connection is open: its first frame (RESUME). Raises InvalidState."""
        self.state = next_client_state(self.state, ClientEvent.CONNECT)
        self.attempt += 1
        before = self._predecessor if not self.numbered else None
        return Resume(
            self.client_id,
            self.attempt,
            self.epoch if before is None else before.epoch,
            self.position if before is None else before.position,
            self._partial_size,
            self._first,
        ).encode()

    def disconnected(self) -> None:
        """The connection is gone. Idempotent, also after CLOSED."""
        self.state = next_client_state(self.state, ClientEvent.LOST)

    def send(self, message: bytes) -> int:
        """Queue one message (v1 framing); returns its seq. Takes it in every state but CLOSED.

        Raises SendBufferFull when it would exceed the bound (one alone always fits), and
        InvalidState after the keeper ended the stream for good.
        """
        if self.state is ClientState.CLOSED:
            raise InvalidState("the stream is closed for good")
        if self._pending and self._pending_bytes + len(message) > self._limit:
            raise SendBufferFull(
                f"{self._pending_bytes} bytes wait for the kernel's host; the limit is "
                f"{self._limit}"
            )
        self._pending.append(message)
        self._pending_bytes += len(message)
        return self.last_seq

    def next_frame(self, max_bytes: int = CHUNK_BYTES) -> bytes | None:
        """The next DATA or CHUNK to write on the live connection, or None."""
        if not self.has_more:
            return None
        message = self._pending[self._next - self._first]
        if len(message) > CHUNK_BYTES:
            return self._next_chunk(message)
        first, batch, budget = self._next, [message], max_bytes - len(message)
        for seq in range(first + 1, self.last_seq + 1):
            message = self._pending[seq - self._first]
            budget -= len(message)
            if budget < 0 or len(message) > CHUNK_BYTES:
                break
            batch.append(message)
        self._went_out(first + len(batch) - 1)
        return ClientData(first, tuple(batch)).encode()

    def next_frames(self) -> list[bytes]:
        """Everything that ``next_frame`` would yield now."""
        return list(iter(self.next_frame, None))

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take one frame from the keeper.

        Raises FrameError or StreamError: close the connection with the error's code and dial
        again; nothing of the offending frame was taken.
        """
        frame = decode(data)
        if self.state is ClientState.RESUMING and isinstance(frame, Resumed):
            return self._take_resumed(frame)
        if isinstance(frame, Bye) and self.state in (ClientState.RESUMING, ClientState.LIVE):
            event = ClientEvent.BYE if frame.come_back else ClientEvent.BYE_FOR_GOOD
            self.state = next_client_state(self.state, event)
            return [ByeReceived(frame)]
        if self.state is not ClientState.LIVE:
            raise StreamError(f"{type(frame).__name__} while {self.state.value}")
        if isinstance(frame, KeeperData):
            return self._take_data(frame)
        if isinstance(frame, Chunk):
            return self._take_chunk(frame)
        if isinstance(frame, Gap):
            return self._take_gap(frame)
        if isinstance(frame, Ack):
            self._take_ack(frame.seq)
            return []
        raise StreamError(f"{type(frame).__name__} is not for a client")

    def consumed(self, seq: int) -> None:
        """The application has everything up to ``seq``: it may be acknowledged to the keeper."""
        if seq > self.position:
            raise InvalidState(f"consumed {seq}, but the position is {self.position}")
        while self._unconsumed and self._unconsumed[0][0] <= seq:
            _, size = self._unconsumed.popleft()
            self._ack_messages += 1
            self._ack_bytes += size
        self._consumed = max(self._consumed, seq)

    @property
    def ack_due(self) -> bool:
        """Enough was consumed that an ACK should go out now, not when the timer fires."""
        return self._ack_messages >= ACK_MESSAGES or self._ack_bytes >= ACK_BYTES

    def take_ack(self) -> bytes | None:
        """An ACK frame when live and something is unacknowledged, else None."""
        if self.state is not ClientState.LIVE or self._consumed <= self._ack_sent:
            return None
        self._ack_sent, self._ack_messages, self._ack_bytes = self._consumed, 0, 0
        return Ack(self._consumed).encode()

    def check_invariants(self) -> None:
        """Raises AssertionError when the stream contradicts itself."""
        assert self._pending_bytes == sum(map(len, self._pending))
        assert self._first <= self._next <= self.last_seq + 1
        assert self._consumed <= self.position
        assert self._partial_size == sum(map(len, self._partial))
        assert not self._partial or self._partial_seq > self.position
        assert self._furthest <= self.last_seq

    def _take_resumed(self, frame: Resumed) -> list[Event]:
        first = self.epoch == NO_EPOCH
        events: list[Event] = [StreamResumed(first)]
        if first or frame.epoch != self.epoch:
            if not first:
                events.insert(0, EpochChanged(tuple(self._pending)))
                self._pending.clear()
                self._pending_bytes = 0
            elif self._predecessor is not None and self._predecessor.epoch != frame.epoch:
                # what is pending is ours and has never been sent to anybody: it may go out
                events.insert(0, EpochChanged(()))
            self._begin(frame)
        else:
            self._continue(frame)
        self.state = next_client_state(self.state, ClientEvent.RESUMED)
        self._next, self._chunk_offset, self._ack_sent = self._first, 0, -1
        return events

    def _begin(self, frame: Resumed) -> None:
        self.epoch, self.position, self._consumed = frame.epoch, frame.seq, frame.seq
        self._first, self._furthest = frame.accepted + 1, frame.accepted
        self._drop_partial()
        self._unconsumed.clear()

    def _continue(self, frame: Resumed) -> None:
        have = self._partial_size
        if frame.seq != self.position or frame.offset not in (0, have):
            raise StreamError(
                f"resumed at {frame.seq}+{frame.offset}, not {self.position}+{have}",
                CloseCode.POSITION,
            )
        if frame.offset == 0:
            self._drop_partial()
        if not self._first - 1 <= frame.accepted <= self._furthest:
            raise StreamError(
                f"accepted {frame.accepted} is not between {self._first - 1} and {self._furthest}",
                CloseCode.SEQ_SKIPPED,
            )
        self._forget_up_to(frame.accepted)

    def _take_data(self, frame: KeeperData) -> list[Event]:
        if frame.after != self.position or self._partial:
            raise StreamError(
                f"DATA after {frame.after}, but the position is {self.position}",
                CloseCode.POSITION,
            )
        self.position = frame.entries[-1][0]
        self._unconsumed.extend((seq, len(message)) for seq, message in frame.entries)
        return [Delivered(seq, message) for seq, message in frame.entries]

    def _take_chunk(self, frame: Chunk) -> list[Event]:
        have = self._partial_size
        if (
            frame.after != self.position
            or frame.offset != have
            or (self._partial and frame.seq != self._partial_seq)
        ):
            raise StreamError(
                f"chunk {frame.seq}+{frame.offset} after {frame.after} does not follow "
                f"{self.position}+{have}",
                CloseCode.POSITION,
            )
        if frame.total > MAX_ENTRY_BYTES:
            raise StreamError(f"entry of {frame.total} bytes is too long", CloseCode.TOO_BIG)
        self._partial_seq = frame.seq
        self._partial.append(bytes(frame.piece))  # what was received is another's by then
        self._partial_size += len(frame.piece)
        if self._partial_size < frame.total:
            return []
        message = b"".join(self._partial)
        self._drop_partial()
        self.position = frame.seq
        self._unconsumed.append((frame.seq, len(message)))
        return [Delivered(frame.seq, message)]

    def _take_gap(self, frame: Gap) -> list[Event]:
        # A gap of 0 … position says only that another epoch began; RESUMED has moved us already.
        if frame.first not in (0, self.position + 1) or frame.last < self.position:
            raise StreamError(
                f"gap {frame.first}..{frame.last} does not follow {self.position}",
                CloseCode.POSITION,
            )
        self.position = frame.last
        self._drop_partial()
        return [GapSeen(frame.first, frame.last, frame.count, frame.reason, frame.notices)]

    def _drop_partial(self) -> None:
        self._partial, self._partial_size = [], 0

    def _take_ack(self, seq: int) -> None:
        if seq > self._furthest:
            raise StreamError(f"ack {seq}, but only {self._furthest} was sent", CloseCode.ACK_AHEAD)
        if seq < self._first - 1:
            raise StreamError(f"ack {seq} after {self._first - 1}", CloseCode.ACK_BACKWARD)
        self._forget_up_to(seq)

    def _forget_up_to(self, seq: int) -> None:
        while self._first <= seq:
            self._pending_bytes -= len(self._pending.popleft())
            self._first += 1
        self._next = max(self._next, self._first)

    def _next_chunk(self, message: bytes) -> bytes:
        seq, offset = self._next, self._chunk_offset
        piece = message[offset : offset + CHUNK_BYTES]
        frame = Chunk(seq - 1, seq, offset, len(message), piece)
        if offset + len(piece) == len(message):
            self._went_out(seq)
        else:
            self._chunk_offset = offset + len(piece)
        return frame.encode()

    def _went_out(self, last: int) -> None:
        self._next, self._chunk_offset = last + 1, 0
        self._furthest = max(self._furthest, last)
