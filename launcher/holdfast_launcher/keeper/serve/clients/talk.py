"""What a connection says and hears, for each of the three subprotocols. No socket here.

A ``Talk`` turns received websocket messages into calls on the hub, and the session's place in
the log into websocket frames. The connection moves the bytes and runs the timers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast_protocol.errors import CloseCode, RemoteError, StreamError
from holdfast_protocol.frames import Bye, FrameType, Resume
from holdfast_protocol.frames import decode as decode_frame
from holdfast_protocol.jupyter import (
    CLIENT_CHANNELS,
    Message,
    decode_legacy,
    decode_v1,
    encode_legacy,
)
from holdfast_protocol.pieces import Buffer, Pieces
from holdfast_protocol.stream.keeper import Acknowledged, Refused

from ..hub import Hub
from ..sessions import Attachment, Session
from .framing import Opcode, frame_head
from .plain import NONCE_BYTES, Lost

__all__ = ["NONCE_BYTES", "LegacyTalk", "PlainTalk", "StreamTalk", "Talk", "Turned"]

#: Written before the transport is asked whether it keeps up.
BATCH_BYTES: Final = 1024 * 1024
#: Short entries of a stream share frames of up to so many bytes.
FRAME_BYTES: Final = 256 * 1024
_CLIENT_FRAMES: Final = frozenset({FrameType.CLIENT_DATA, FrameType.CHUNK})


@dataclass(frozen=True, slots=True)
class Turned:
    """The connection is turned away: write ``bye`` and close."""

    bye: bytes
    close_code: CloseCode
    message: str


class Talk(ABC):
    """One connection's subprotocol. ``may_execute``: it may send to the kernel."""

    def __init__(self, hub: Hub, session: Session, *, may_execute: bool) -> None:
        self.hub = hub
        self.session = session
        self._may_execute = may_execute

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.session}>"

    @abstractmethod
    def begin(self, attachment: Attachment) -> None:
        """The websocket is open."""

    @abstractmethod
    def binary(self, data: bytes, attachment: Attachment) -> Turned | None:
        """A binary message came. Raises RemoteError: close with its code."""

    @abstractmethod
    def text(self, data: str) -> None:
        """A text message came. Raises RemoteError."""

    @abstractmethod
    def pong(self, payload: bytes) -> None:
        """A pong came."""

    @abstractmethod
    def output(self) -> list[Buffer]:
        """Whole frames to write now, about BATCH_BYTES; empty when there is nothing."""

    @abstractmethod
    def ended(self) -> list[bytes] | None:
        """When the session has everything and its kernel is dead: the last frames, else None."""

    @abstractmethod
    def farewell(self, bye: Bye) -> list[bytes]:
        """Frames that say goodbye in this subprotocol."""

    #: Whether something is to be acknowledged to the client at once, or by the timer.
    ack_due = False
    ack_pending = False

    def take_ack(self) -> list[bytes]:
        return []

    def _require_execute(self) -> None:
        if not self._may_execute:
            raise StreamError("this connection may only read", CloseCode.POLICY)

    def _accept(self, message: Message, size: int) -> None:
        if message.channel not in CLIENT_CHANNELS:
            raise StreamError(f"a client cannot send on {message.channel}")
        self.hub.accept(self.session, message, size)


class StreamTalk(Talk):
    """``v1.stream.holdfast``."""

    def __init__(self, hub: Hub, session: Session, *, may_execute: bool) -> None:
        super().__init__(hub, session, may_execute=may_execute)
        self._stream = hub.stream_of(session)
        self._attached = False
        self._first: list[Buffer] = []
        self._unacked = False

    def begin(self, attachment: Attachment) -> None:
        """Nothing: the session is this connection's only with an accepted RESUME."""

    def binary(self, data: bytes, attachment: Attachment) -> Turned | None:
        if not self._attached:
            return self._resume(data, attachment)
        if data and data[0] in _CLIENT_FRAMES:
            self._require_execute()
        refused: RemoteError | None = None
        for event in self._stream.receive(data):
            if isinstance(event, Acknowledged):
                self.hub.acknowledged(self.session, event.seq)
                continue
            self._unacked = True
            try:
                self._accept(decode_v1(event.message), len(event.message))
            except RemoteError as error:
                # the whole batch counts as accepted: those behind it will not come again
                refused = refused or error
        if refused is not None:
            raise refused
        return None

    def text(self, data: str) -> None:
        raise StreamError("a text message on a binary stream")

    def pong(self, payload: bytes) -> None:
        """Only liveness: this client acknowledges."""

    def output(self) -> list[Buffer]:
        if not self._attached:
            return []
        parts, self._first = self._first, []
        size = 0
        while size < BATCH_BYTES and (frame := self._next_frame()) is not None:
            length = sum(map(len, frame))
            parts += (frame_head(Opcode.BINARY, length), *frame)
            size += length
        return parts

    def ended(self) -> list[bytes] | None:
        if not self._attached or not self.hub.dead or self._stream.has_more:
            return None
        return self.take_ack()

    def farewell(self, bye: Bye) -> list[bytes]:
        ack = self.take_ack() if self._attached else []
        return [*ack, *_binary(bye.encode())]

    @property
    def ack_due(self) -> bool:  # type: ignore[override]  # a constant for the others
        return self._attached and self._stream.ack_due

    @property
    def ack_pending(self) -> bool:  # type: ignore[override]  # a constant for the others
        return self._unacked

    def take_ack(self) -> list[bytes]:
        self._unacked = False
        ack = self._stream.take_ack()
        return [] if ack is None else _binary(ack)

    def _resume(self, data: bytes, attachment: Attachment) -> Turned | None:
        frame = decode_frame(data)
        if not isinstance(frame, Resume):
            raise StreamError(f"{type(frame).__name__} before RESUME")
        new = not self.hub.journal.index.has_session(self.session.session_id)
        outcome = self._stream.attach(frame)
        if isinstance(outcome, Refused):
            return Turned(outcome.bye, outcome.close_code, outcome.message)
        if self.session.plain is not None:
            self.session.plain.detach()
        self._attached = True
        self._first = [part for frame in outcome.frames for part in _binary(frame)]
        self.hub.attached(self.session, attachment, new=new)
        return None

    def _next_frame(self) -> list[Buffer] | None:
        while True:
            loss = self.hub.journal.index.loss_for(self.session.session_id, self._stream.sent)
            try:
                frame = self._stream.next_parts(FRAME_BYTES)
            except KeyError:
                continue  # the disk lost it just now; the loss is in the index already
            if loss is not None:
                # Not before its GAP is made: in a full log these answers push out what is next,
                # and that has to be a gap of its own, which is shown, too.
                self.hub.losses.close(self.session, loss)
            return frame


class PlainTalk(Talk):
    """``v1.kernel.websocket.jupyter.org``."""

    def __init__(self, hub: Hub, session: Session, nonce: bytes, *, may_execute: bool) -> None:
        super().__init__(hub, session, may_execute=may_execute)
        self._stream = hub.plain_of(session)
        self._nonce = nonce

    def begin(self, attachment: Attachment) -> None:
        new = not self.hub.journal.index.has_session(self.session.session_id)
        if self.session.stream is not None:
            self.session.stream.detach()
        self._stream.attach(self._nonce)
        self.hub.attached(self.session, attachment, new=new)

    def binary(self, data: bytes, attachment: Attachment) -> Turned | None:
        self._require_execute()
        self._accept(decode_v1(data), len(data))
        return None

    def text(self, data: str) -> None:
        raise StreamError("a text message; this subprotocol is binary")

    def pong(self, payload: bytes) -> None:
        proven = self._stream.pong(payload)
        if proven is not None:
            self.hub.acknowledged(self.session, proven)

    def output(self) -> list[Buffer]:
        parts: list[Buffer] = []
        size = 0
        while size < BATCH_BYTES and (entries := self._next_entries()) is not None:
            for data in entries:
                self._write(parts, data)
                size += len(data)
        ping = self._stream.take_ping()
        if ping is not None:
            parts += (frame_head(Opcode.PING, len(ping)), ping)
        return parts

    def ended(self) -> list[bytes] | None:
        return [] if self.hub.dead and not self._stream.has_more else None

    def farewell(self, bye: Bye) -> list[bytes]:
        return []  # the close code is all that this client understands

    def _write(self, parts: list[Buffer], data: bytes | Pieces) -> None:
        payload = data.parts if isinstance(data, Pieces) else (data,)
        parts += (frame_head(Opcode.BINARY, len(data)), *payload)

    def _next_entries(self) -> Sequence[bytes | Pieces] | None:
        """The next entry, or what tells of a gap before it (maybe nothing); None at the end."""
        try:
            entry = self._stream.next_entry()
        except KeyError:
            return ()  # the disk lost it just now; the loss is in the index already
        if isinstance(entry, Lost):
            notices = self.hub.losses.notices(self.session.session_id, entry.loss)
            self.hub.losses.close(self.session, entry.loss)
            return notices
        return None if entry is None else (entry,)


class LegacyTalk(PlainTalk):
    """The default framing without a subprotocol: JSON text, binary when there are buffers."""

    def binary(self, data: bytes, attachment: Attachment) -> Turned | None:
        self._require_execute()
        self._accept(decode_legacy(data), len(data))
        return None

    def text(self, data: str) -> None:
        self._require_execute()
        self._accept(decode_legacy(data), len(data))

    def _write(self, parts: list[Buffer], data: bytes | Pieces) -> None:
        encoded = encode_legacy(decode_v1(bytes(data)))
        if isinstance(encoded, str):
            text = encoded.encode()
            parts += (frame_head(Opcode.TEXT, len(text)), text)
        else:
            parts += (frame_head(Opcode.BINARY, len(encoded)), encoded)


def _binary(frame: bytes) -> list[bytes]:
    return [frame_head(Opcode.BINARY, len(frame)), frame]
