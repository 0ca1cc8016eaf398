"""The stream towards a gateway that is not Holdfast: the same face, without its promises.

The standard protocol has no numbers, so what is written is gone from here and what a lost
connection swallowed cannot be known. What waits for a connection is kept, in order, once.
"""

from __future__ import annotations

from collections import deque

from holdfast_protocol.errors import SendBufferFull
from holdfast_protocol.jupyter import (
    V1_SUBPROTOCOL,
    decode_legacy,
    decode_v1,
    encode_legacy,
    encode_v1,
)
from holdfast_protocol.stream.client import Delivered


class PlainStream:
    """Sends and receives single messages in v1 or legacy framing; v1 towards the inside."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._pending: deque[bytes] = deque()
        self.pending_bytes = 0
        self.position = 0
        self._v1: bool | None = None

    def __repr__(self) -> str:
        framing = {None: "down", True: "v1", False: "legacy"}[self._v1]
        return f"<PlainStream {framing} pending={len(self._pending)}>"

    @property
    def has_more(self) -> bool:
        return self._v1 is not None and bool(self._pending)

    def connect(self, subprotocol: str | None) -> None:
        """A connection is open that speaks ``subprotocol``."""
        self._v1 = subprotocol == V1_SUBPROTOCOL

    def disconnected(self) -> None:
        self._v1 = None

    def send(self, message: bytes) -> None:
        """Queue one message. Raises SendBufferFull."""
        if self._pending and self.pending_bytes + len(message) > self._limit:
            raise SendBufferFull(f"{self.pending_bytes} bytes wait for the gateway")
        self._pending.append(message)
        self.pending_bytes += len(message)

    @property
    def pending(self) -> tuple[bytes, ...]:
        """What has not gone out, in order."""
        return tuple(self._pending)

    def take_pending(self) -> list[bytes]:
        """The same, and none of it is here any more."""
        pending = list(self._pending)
        self._pending.clear()
        self.pending_bytes = 0
        return pending

    def next_frame(self) -> bytes | str | None:
        """The next message to write on the open connection, or None."""
        if not self.has_more:
            return None
        message = self._pending.popleft()
        self.pending_bytes -= len(message)
        return message if self._v1 else encode_legacy(decode_v1(message))

    def receive(self, payload: memoryview, *, text: bool) -> Delivered:
        """Take one message of the gateway. Raises FrameError."""
        if self._v1 and not text:
            message = bytes(payload)
        else:
            data = bytes(payload)
            parsed = decode_legacy(data.decode("utf-8", "replace") if text else data)
            message = encode_v1(parsed)
        self.position += 1
        return Delivered(self.position, message)
