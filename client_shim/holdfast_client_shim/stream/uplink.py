"""What a notebook sends, on its way to a kernel, whatever the gateway speaks.

Before the first contact it is only kept, in order. Then a ``ClientStream`` numbers it, or, at a
gateway that is not Holdfast, a ``PlainStream`` sends it once. Invariants: a session that was
numbered is never continued without numbers, and what has not gone out is not lost in a change
from one to the other. It must not know connections or notebooks.
"""

from __future__ import annotations

import os
from typing import Final

from holdfast_protocol.errors import FrameError, SendBufferFull
from holdfast_protocol.frames import NO_EPOCH, STREAM_SUBPROTOCOL
from holdfast_protocol.jupyter import decode_v1
from holdfast_protocol.stream.client import ClientStream, Predecessor

from .plain import PlainStream

#: Unacknowledged bytes of a notebook that are kept for the keeper.
SEND_LIMIT_BYTES: Final = 64 * 1024 * 1024


class Uplink:
    """``predecessor``: what a process before this one knew of the session."""

    def __init__(self, predecessor: Predecessor | None = None) -> None:
        self._predecessor = predecessor
        self._machine: ClientStream | PlainStream | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __repr__(self) -> str:
        return f"<Uplink {self._machine!r} held={len(self._held)}>"

    @property
    def machine(self) -> ClientStream | PlainStream | None:
        return self._machine

    @property
    def stream(self) -> ClientStream | None:
        """The numbered stream, if that is what it is."""
        return self._machine if isinstance(self._machine, ClientStream) else None

    @property
    def plain(self) -> bool:
        """Whether it goes to a gateway of another make, without numbers."""
        return isinstance(self._machine, PlainStream)

    @property
    def pending_bytes(self) -> int:
        """Bytes that the other side may not have."""
        return self._held_bytes + (0 if self._machine is None else self._machine.pending_bytes)

    @property
    def position(self) -> int:
        return 0 if self._machine is None else self._machine.position

    @property
    def epoch(self) -> bytes:
        """Of the log that the session is at; NO_EPOCH when that is not known."""
        if self.stream is not None and self.stream.numbered:
            return self.stream.epoch
        return NO_EPOCH if self._predecessor is None else self._predecessor.epoch

    def send(self, message: bytes) -> None:
        """Take one message (v1). Raises LocalError when there is no room, or no way any more."""
        if self._machine is not None:
            self._machine.send(message)
        elif self._held and self._held_bytes + len(message) > SEND_LIMIT_BYTES:
            raise SendBufferFull(f"{self._held_bytes} bytes wait for a gateway")
        else:
            self._held.append(message)
            self._held_bytes += len(message)

    def connect(self, subprotocol: str | None) -> list[bytes] | None:
        """A connection speaks ``subprotocol``: what is to be said first; None: it will not do."""
        resumable = subprotocol == STREAM_SUBPROTOCOL
        if self.stream is not None and not resumable:
            return None
        if isinstance(self._machine, PlainStream) and resumable:
            self._held, self._machine = self._machine.take_pending(), None
        if self._machine is None:
            self._machine = self._new_stream() if resumable else PlainStream(SEND_LIMIT_BYTES)
            self._give_held()
        if isinstance(self._machine, ClientStream):
            return [self._machine.connect()]
        self._machine.connect(subprotocol)
        return []

    def start_over(self) -> None:
        """The keeper will not have the place that we named. What it has not accepted is kept if
        it never went out; otherwise it may have run, and is dropped here."""
        unsent: tuple[bytes, ...] = ()
        if self.stream is not None and not self.stream.numbered:
            unsent = self.stream.unacknowledged
        self._predecessor = None
        self._held = list(unsent)
        self._machine = self._new_stream()
        self._give_held()

    def disconnected(self) -> None:
        if self._machine is not None:
            self._machine.disconnected()

    def next_frame(self) -> bytes | str | None:
        return None if self._machine is None else self._machine.next_frame()

    def unaccepted(self) -> dict[str, int | None]:
        """msg_id → number, None before it is final, of what the other side may not have."""
        stream = self.stream
        if stream is not None:
            messages: tuple[bytes, ...] = stream.unacknowledged
        elif isinstance(self._machine, PlainStream):
            messages = self._machine.pending
        else:
            messages = tuple(self._held)
        numbers: dict[str, int | None] = {}
        for place, message in enumerate(messages, 1):
            final = stream is not None and stream.numbered
            try:
                msg_id = decode_v1(message).msg_id
            except FrameError:
                continue
            numbers[msg_id] = stream.accepted + place if final and stream is not None else None
        return numbers

    def _new_stream(self) -> ClientStream:
        return ClientStream(
            os.urandom(16), limit_bytes=SEND_LIMIT_BYTES, predecessor=self._predecessor
        )

    def _give_held(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        for message in held:
            assert self._machine is not None
            self._machine.send(message)
