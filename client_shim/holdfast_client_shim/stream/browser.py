"""One notebook's websocket at jupyter_server: batches out, and proof that they arrived.

A websocket answers pings in order, so the pong to a ping that was written after a batch proves
the batch. Messages are written to the connection's stream as ready frames, many in one write:
``write_message`` makes a task and a system call of each (measured: 4 times the time per message).
With compression switched on in jupyter_server, its public way is taken all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable, Sequence
from logging import Logger
from typing import TYPE_CHECKING

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from holdfast_protocol.errors import FrameError
from holdfast_protocol.jupyter import V1_SUBPROTOCOL, decode_legacy, decode_v1, encode_v1
from holdfast_protocol.jupyter import encode_legacy as to_legacy

from ..gateway.websocket import Opcode, server_header

if TYPE_CHECKING:
    from .outbox import Item

#: Seconds between the first unproven message and the ping that proves it.
PROOF_DELAY = 0.005
#: Bytes after which a proof is asked for at once, so that large outputs keep flowing: reading
#: pauses when too much is unproven, and one proof at a time would let the line run empty.
PROOF_BYTES = 2 * 1024 * 1024
_ALONE = 64 * 1024
_PROOF = struct.Struct("!8sQ")


class BrowserLeg:
    """Writes to one notebook and reports what it has for certain.

    ``on_proven`` is called with this leg and the index of the last item that surely arrived.
    """

    def __init__(
        self,
        handler: WebSocketHandler,
        *,
        on_proven: Callable[[BrowserLeg, int], None],
        log: Logger,
    ) -> None:
        self._handler = handler
        self._on_proven = on_proven
        self._log = log
        self._nonce = os.urandom(8)
        self._written = 0
        self._asked = 0
        self._proven = 0
        self._unasked_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._v1 = handler.selected_subprotocol == V1_SUBPROTOCOL
        self._compressed = handler.get_compression_options() is not None
        self._server_on_pong = handler.on_pong
        handler.on_pong = self._on_pong  # type: ignore[method-assign] # the only place where a pong can be seen
        handler.set_nodelay(True)

    def __repr__(self) -> str:
        framing = "v1" if self._v1 else "legacy"
        return f"<BrowserLeg {framing} written={self._written} asked={self._asked}>"

    @property
    def open(self) -> bool:
        return self._handler.ws_connection is not None

    def parse(self, message: str | bytes) -> bytes:
        """A message of the notebook as v1 bytes. Raises FrameError."""
        if self._v1 and isinstance(message, bytes):
            return message
        return encode_v1(decode_legacy(message))

    def write(self, items: Sequence[Item]) -> bool:
        """Write items in order; False when the websocket is closed already."""
        if not items:
            return True
        try:
            if self._compressed:
                self._write_publicly(items)
            else:
                self._write_frames(items)
        except (StreamClosedError, WebSocketClosedError):
            return False
        return True

    def close(self, code: int, reason: str) -> None:
        """Close the websocket; reasons are cut to what a close frame holds."""
        if self.open:
            self._handler.close(code, reason.encode()[:120].decode("utf-8", "ignore"))

    def _write_frames(self, items: Sequence[Item]) -> None:
        connection = self._handler.ws_connection
        if connection is None or connection.is_closing():
            raise StreamClosedError
        stream = connection.stream
        assert stream is not None, "the websocket is open"
        parts: list[bytes] = []
        for item in items:
            opcode, payload = self._framed(item.message)
            self._unasked_bytes += len(payload)
            parts.append(server_header(opcode, len(payload)))
            if len(payload) > _ALONE:
                # by itself, so that neither we nor tornado copy it
                stream.write(b"".join(parts))
                stream.write(payload)
                parts.clear()
            else:
                parts.append(payload)
        if parts:
            stream.write(b"".join(parts))
        self._written = items[-1].index
        self._ask_soon()

    def _write_publicly(self, items: Sequence[Item]) -> None:
        for item in items:
            opcode, payload = self._framed(item.message)
            self._unasked_bytes += len(payload)
            self._handler.write_message(payload, binary=opcode is Opcode.BINARY)
        self._written = items[-1].index
        self._ask_soon()

    def _ask_soon(self) -> None:
        """Have one ping at a time under way, and one more after every PROOF_BYTES.

        Not with each batch: one cell is several batches, and a ping and a pong for each
        cost a quarter of what a short cell costs this process (measured).
        """
        if self._unasked_bytes >= PROOF_BYTES:
            if self._timer is not None:
                self._timer.cancel()
            self._ask()
        elif self._asked <= self._proven and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(PROOF_DELAY, self._ask)

    def _ask(self) -> None:
        self._timer = None
        self._asked = self._written
        self._unasked_bytes = 0
        with contextlib.suppress(WebSocketClosedError, StreamClosedError):
            self._handler.ping(_PROOF.pack(self._nonce, self._written))

    def _framed(self, message: bytes) -> tuple[Opcode, bytes]:
        if self._v1:
            return Opcode.BINARY, message
        try:
            legacy = to_legacy(decode_v1(message))
        except FrameError as error:
            self._log.warning("holdfast: a kernel's message cannot be framed: %s", error)
            return Opcode.PONG, b""  # unasked for, it is ignored (RFC 6455 section 5.5.3)
        if isinstance(legacy, str):
            return Opcode.TEXT, legacy.encode()
        return Opcode.BINARY, legacy

    def _on_pong(self, data: bytes) -> None:
        self._server_on_pong(data)
        if len(data) != _PROOF.size or not data.startswith(self._nonce):
            return
        _, index = _PROOF.unpack(data)
        if not self._proven < index <= self._asked:
            return
        self._proven = index
        if self._written > self._asked:
            self._ask_soon()
        self._on_proven(self, index)
