"""One connection between a stream client and a keeper: bytes on the way, which may be cut anywhere.

Each end learns of the end of the connection by itself, and late: until then the keeper may read
bytes that a client sent before it dialled again, which is what a proxy's buffers do.
"""

from __future__ import annotations

import struct
from typing import Final

from holdfast_launcher.keeper.serve.clients.talk import StreamTalk
from holdfast_launcher.keeper.serve.hub import Hub
from holdfast_launcher.keeper.serve.sessions import Attachment, Session
from holdfast_protocol.errors import CloseCode
from holdfast_protocol.frames import Bye, ByeReason

_LENGTH: Final = struct.Struct(">I")


class Wire(Attachment):
    """``up`` and ``down`` are bytes on the way to the keeper and to the client."""

    tunnel = None

    def __init__(self, number: int, hub: Hub, session: Session) -> None:
        self.number = number
        self.hub = hub
        self.talk = StreamTalk(hub, session, may_execute=True)
        self.up = bytearray()
        self.down = bytearray()
        self.broken = False  # nothing that is written now arrives
        self.client_there = True
        self.keeper_there = True
        self.dismissed = False
        self._keeper_inbox = bytearray()
        self._client_inbox = bytearray()

    def __repr__(self) -> str:
        return (
            f"<Wire {self.number} up={len(self.up)} down={len(self.down)}"
            f"{' broken' if self.broken else ''}{' dismissed' if self.dismissed else ''}>"
        )

    # --- the keeper's end (Attachment) ---

    def wake(self) -> None:
        """The story says when the keeper writes."""

    def dismiss(
        self, reason: ByeReason, code: CloseCode, detail: str, *, come_back: bool = False
    ) -> None:
        if not self.dismissed:
            self.dismissed = True
            self.keeper_writes(self.talk.farewell(Bye(reason, come_back, detail)))

    def keeper_writes(self, parts: list[bytes | bytearray | memoryview] | list[bytes]) -> None:
        if not self.broken:
            for part in parts:
                self.down += part

    def client_writes(self, frame: bytes) -> None:
        if not self.broken:
            self.up += _LENGTH.pack(len(frame)) + frame

    def cut(self, up: int, down: int) -> None:
        """Of what is on the way only so many bytes still arrive, and nothing of what follows."""
        self.broken = True
        del self.up[up:]
        del self.down[down:]

    def keeper_takes(self, size: int) -> list[bytes]:
        """``size`` bytes arrive at the keeper; the messages that are whole now."""
        self._keeper_inbox += self.up[:size]
        del self.up[:size]
        whole = []
        while len(self._keeper_inbox) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._keeper_inbox)
            if len(self._keeper_inbox) < _LENGTH.size + length:
                break
            whole.append(bytes(self._keeper_inbox[_LENGTH.size : _LENGTH.size + length]))
            del self._keeper_inbox[: _LENGTH.size + length]
        return whole

    def client_takes(self, size: int) -> list[bytes]:
        """``size`` bytes arrive at the client: whole websocket messages (RFC 6455, 5.2)."""
        self._client_inbox += self.down[:size]
        del self.down[:size]
        whole = []
        while (found := _first_frame(self._client_inbox)) is not None:
            begin, end = found
            whole.append(bytes(self._client_inbox[begin:end]))
            del self._client_inbox[:end]
        return whole


def _first_frame(data: bytearray) -> tuple[int, int] | None:
    """Where the first frame's payload begins and ends, when all of it is there."""
    if len(data) < 2:
        return None
    begin, length = 2, data[1]
    if length == 126:
        begin = 4
    elif length == 127:
        begin = 10
    if len(data) < begin:
        return None
    if begin > 2:
        length = int.from_bytes(data[2:begin], "big")
    return None if len(data) < begin + length else (begin, begin + length)
