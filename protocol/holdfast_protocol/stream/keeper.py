"""The keeper's end of one session's stream: frames in, events and frames out. No I/O.

It lives as long as the kernel; connections come and go. What it promises:

* *Once in, in order.* ``accepted`` only ever rises by one, and an ``Accepted`` event is given
  exactly when it does. A message that comes again is below ``accepted`` and is dropped.
* *Complete out, in order, or a GAP.* ``sent`` moves from entry to entry of the log as
  ``next_for`` yields them; when the log recorded a loss above ``sent``, a GAP goes first.
* *One live connection.* ``attach`` decides from (client id, attempt) alone which connection is
  the session's; the loser is refused as gone. ``accepted`` is read after that decision, and
  the caller discards the old connection's unread bytes before it calls ``attach``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ..errors import CloseCode, InvalidState, StreamError
from ..frames import (
    CHUNK_BYTES,
    NO_EPOCH,
    VERSION,
    Ack,
    Bye,
    ByeReason,
    Chunk,
    ClientData,
    Frame,
    Gap,
    Resume,
    Resumed,
    decode,
    encode_chunk_head,
    encode_keeper_data,
)
from ..log import Entry, LogReader, Loss
from ..pieces import Buffer
from .state import KEEPER_TRANSITIONS, KeeperEvent, KeeperState

ACK_MESSAGES: Final = 64
ACK_BYTES: Final = 256 * 1024
#: A client message longer than this many bytes is refused.
MAX_MESSAGE_BYTES: Final = 1 << 30
_REPLACED_KEPT: Final = 1024
_PER_ENTRY: Final = 8


@dataclass(frozen=True, slots=True)
class Attached:
    """The connection is the session's; ``frames`` go out first. ``new_client``: another client
    id than before, so that what the old one had open is nobody's any more."""

    frames: tuple[bytes, ...]
    new_client: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The connection is not the session's: send ``bye`` and close with ``close_code``."""

    bye: bytes
    close_code: CloseCode
    message: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A client message (v1 framing) that is to be given to the kernel, once."""

    seq: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The client has everything up to ``seq``; the log may be trimmed."""

    seq: int


Event = Accepted | Acknowledged


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is kept of a stream whose client was away for long, besides its place in the log.

    ``accepted`` keeps what the client sends again from reaching the kernel twice; ``furthest``
    bounds the position that it may claim.
    """

    client_id: bytes | None
    accepted: int
    furthest: int


class SessionStream:
    """One session at the keeper. All methods are synchronous and never block.

    ``notices``: messages (v1 framing) for the cells that a loss touched, which go with its GAP.
    """

    def __init__(
        self,
        session_id: str,
        log: LogReader,
        *,
        epoch: bytes,
        remembered: Remembered | None = None,
        notices: Callable[[Loss], Iterable[bytes]] = lambda _: (),
    ) -> None:
        known = remembered or Remembered(None, 0, 0)
        self.session_id = session_id
        self.state = KeeperState.DETACHED
        self.client_id = known.client_id
        self.attempt = 0
        self.accepted = known.accepted
        self.sent = 0
        self._epoch = epoch
        self._log = log
        self._notices = notices
        self._chunk_offset = 0
        self._furthest = known.furthest
        self._replaced: deque[bytes] = deque(maxlen=_REPLACED_KEPT)
        self._partial: bytearray | None = None
        self._ack_sent = known.accepted
        self._ack_bytes = 0

    def __repr__(self) -> str:
        return (
            f"<SessionStream {self.session_id} {self.state.value} accepted={self.accepted} "
            f"sent={self.sent}+{self._chunk_offset} acknowledged={self.acknowledged}>"
        )

    @property
    def acknowledged(self) -> int:
        """What the client has acknowledged of the log; 0 before its first attach."""
        known = self._log.index.has_session(self.session_id)
        return self._log.index.acknowledged(self.session_id) if known else 0

    @property
    def remembered(self) -> Remembered:
        """What another stream needs to go on in its place. Only while detached."""
        return Remembered(self.client_id, self.accepted, self._furthest)

    def attach(self, resume: Resume) -> Attached | Refused:
        """Decide whether this connection is the session's, and from where the stream goes on.

        Invariant: of two connections of one client id, the one with the higher attempt wins
        whatever the order in which they are read; a client id once replaced never comes back.
        """
        refusal = self._refusal(resume)
        if refusal is not None:
            return refusal
        new_client = self.client_id is not None and self.client_id != resume.client_id
        if new_client and self.client_id is not None:
            self._replaced.append(self.client_id)
        self.client_id, self.attempt = resume.client_id, resume.attempt
        self.state = KEEPER_TRANSITIONS[self.state, KeeperEvent.ATTACH]
        self._partial = None
        frames = self._position(resume)
        self._ack_sent, self._ack_bytes = self.accepted, 0
        return Attached(tuple(frames), new_client)

    def detach(self) -> None:
        """The connection is gone. Idempotent."""
        self.state = KEEPER_TRANSITIONS[self.state, KeeperEvent.DETACH]
        self._partial = None

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take one frame from the client.

        Raises FrameError or StreamError: close the connection with the error's code; nothing
        of the offending frame was taken.
        """
        if self.state is not KeeperState.ATTACHED:
            raise InvalidState("a frame for a session without a connection")
        frame: Frame = decode(data)
        if isinstance(frame, ClientData):
            return self._take_data(frame)
        if isinstance(frame, Chunk):
            return self._take_chunk(frame)
        if isinstance(frame, Ack):
            return self._take_ack(frame.seq)
        raise StreamError(f"{type(frame).__name__} is not for a keeper now")

    def next_frame(self, max_bytes: int = CHUNK_BYTES) -> bytes | None:
        """``next_parts`` in one place."""
        parts = self.next_parts(max_bytes)
        return None if parts is None else b"".join(parts)

    def next_parts(self, max_bytes: int = CHUNK_BYTES) -> list[Buffer] | None:
        """The next frame of log entries to send, or None when the client has all. Its parts are
        to be written one after another; long ones are views of the log's own bytes.

        A GAP comes alone and before anything after it; an entry above CHUNK_BYTES comes in
        CHUNKs; others are batched up to ``max_bytes``, at least one.
        """
        loss = self._log.index.loss_for(self.session_id, self.sent)
        if loss is not None:
            notices = tuple(self._notices(loss))
            gap = Gap(self.sent + 1, loss.last, loss.count, loss.reason, notices)
            self._set_sent(loss.last)
            return [gap.encode()]
        entry = self._log.index.next_for(self.session_id, self.sent)
        if entry is None:
            return None
        if entry.size > CHUNK_BYTES:
            return self._next_chunk(entry)
        return self._next_batch(entry, max_bytes)

    @property
    def has_more(self) -> bool:
        """Whether ``next_frame`` would yield one."""
        index = self._log.index
        return (
            index.loss_for(self.session_id, self.sent) is not None
            or index.next_for(self.session_id, self.sent) is not None
        )

    @property
    def ack_due(self) -> bool:
        """Enough was accepted that an ACK should go out now, not when the timer fires."""
        return self.accepted - self._ack_sent >= ACK_MESSAGES or self._ack_bytes >= ACK_BYTES

    def take_ack(self) -> bytes | None:
        """An ACK frame when the client does not know yet what was accepted, else None."""
        if self.accepted == self._ack_sent:
            return None
        self._ack_sent, self._ack_bytes = self.accepted, 0
        return Ack(self.accepted).encode()

    def check_invariants(self) -> None:
        """Raises AssertionError when the stream contradicts itself or its log."""
        assert self._ack_sent <= self.accepted
        assert self.acknowledged <= max(self._furthest, self.acknowledged)
        assert self.sent <= max(self._log.index.head, self._furthest)
        assert self.state is KeeperState.ATTACHED or self._partial is None

    def _refusal(self, resume: Resume) -> Refused | None:
        if resume.version != VERSION:
            text = f"stream version {resume.version} is not spoken here (this keeper: {VERSION})"
            return _refuse(ByeReason.GONE, CloseCode.BAD_FRAME, text)
        if resume.client_id in self._replaced:
            return _refuse(ByeReason.SUPERSEDED, CloseCode.GONE, "another client has the session")
        same_client = resume.client_id == self.client_id
        if same_client and resume.attempt <= self.attempt:
            return _refuse(ByeReason.SUPERSEDED, CloseCode.GONE, "a newer connection is there")
        if resume.epoch != self._epoch:
            return None
        if resume.seq and not self._log.index.has_session(self.session_id):
            text = "this session was away for so long that its place was given up"
            return _refuse(ByeReason.EXPIRED, CloseCode.GONE, text)
        if not self.acknowledged <= resume.seq <= self._furthest:
            text = f"position {resume.seq} is not between {self.acknowledged} and {self._furthest}"
            return _refuse(ByeReason.GONE, CloseCode.POSITION, text)
        if same_client and resume.first_unacked > self.accepted + 1:
            text = f"first unacknowledged {resume.first_unacked}, but accepted is {self.accepted}"
            return _refuse(ByeReason.GONE, CloseCode.SEQ_SKIPPED, text)
        return None

    def _position(self, resume: Resume) -> list[bytes]:
        index = self._log.index
        stranger = resume.epoch not in (NO_EPOCH, self._epoch)
        index.add_session(self.session_id, index.floor if stranger else None)
        index.set_holding(self.session_id, True)
        known = resume.epoch == self._epoch
        self._set_sent(resume.seq if known else index.acknowledged(self.session_id))
        if known and resume.offset:
            entry = index.next_for(self.session_id, self.sent)
            lost = index.loss_for(self.session_id, self.sent)
            if lost is None and entry is not None and resume.offset < entry.size:
                self._chunk_offset = resume.offset
        resumed = Resumed(self._epoch, self.sent, self._chunk_offset, self.accepted)
        frames = [resumed.encode()]
        if stranger:
            frames.append(Gap(0, self.sent, 0, "the keeper was replaced").encode())
        return frames

    def _take_data(self, frame: ClientData) -> list[Event]:
        if self._partial is not None:
            raise StreamError("DATA inside a chunked message", CloseCode.SEQ_SKIPPED)
        if frame.first_seq > self.accepted + 1:
            raise StreamError(
                f"client seq {frame.first_seq} skips; accepted is {self.accepted}",
                CloseCode.SEQ_SKIPPED,
            )
        fresh = frame.messages[self.accepted + 1 - frame.first_seq :]
        return [self._accept(message) for message in fresh]

    def _take_chunk(self, frame: Chunk) -> list[Event]:
        if frame.seq <= self.accepted:
            return []
        have = 0 if self._partial is None else len(self._partial)
        if frame.seq != self.accepted + 1 or frame.after != self.accepted or frame.offset != have:
            raise StreamError(
                f"chunk {frame.seq}+{frame.offset} does not follow {self.accepted}+{have}",
                CloseCode.SEQ_SKIPPED,
            )
        if frame.total > MAX_MESSAGE_BYTES:
            raise StreamError(f"message of {frame.total} bytes is too long", CloseCode.TOO_BIG)
        if self._partial is None:
            self._partial = bytearray()
        self._partial += frame.piece
        if len(self._partial) < frame.total:
            return []
        message, self._partial = bytes(self._partial), None
        return [self._accept(message)]

    def _accept(self, message: bytes) -> Accepted:
        self.accepted += 1
        self._ack_bytes += len(message)
        return Accepted(self.accepted, message)

    def _take_ack(self, seq: int) -> list[Event]:
        if seq > self.sent:
            raise StreamError(f"ack {seq}, but only {self.sent} was sent", CloseCode.ACK_AHEAD)
        acknowledged = self.acknowledged
        if seq < acknowledged:
            raise StreamError(f"ack {seq} after {acknowledged}", CloseCode.ACK_BACKWARD)
        if seq == acknowledged:
            return []
        self._log.index.acknowledge(self.session_id, seq)
        return [Acknowledged(seq)]

    def _next_batch(self, first: Entry, max_bytes: int) -> list[Buffer]:
        after, budget = self.sent, max_bytes
        batch: list[tuple[int, bytes]] = []
        entry: Entry | None = first
        while entry is not None and entry.size <= CHUNK_BYTES:
            budget -= entry.size + _PER_ENTRY
            if batch and budget < 0:
                break
            batch.append((entry.seq, bytes(self._log.read(entry.seq))))
            entry = self._log.index.next_for(self.session_id, entry.seq)
        self._set_sent(batch[-1][0])
        return [encode_keeper_data(after, batch)]

    def _next_chunk(self, entry: Entry) -> list[Buffer]:
        offset = self._chunk_offset
        pieces = self._log.read_part(entry.seq, offset, CHUNK_BYTES)
        head = encode_chunk_head(self.sent, entry.seq, offset, entry.size)
        end = offset + sum(map(len, pieces))
        if end >= entry.size:
            self._set_sent(entry.seq)
        else:
            self._chunk_offset = end
        return [head, *pieces]

    def _set_sent(self, seq: int) -> None:
        self.sent, self._chunk_offset = seq, 0
        self._furthest = max(self._furthest, seq)


def _refuse(reason: ByeReason, code: CloseCode, text: str) -> Refused:
    return Refused(Bye(reason, come_back=False, detail=text).encode(), code, text)
