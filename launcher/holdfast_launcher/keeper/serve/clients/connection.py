"""One client's websocket: bytes between an aiohttp response and a ``Talk``.

It owns the timers (ACK after 50 ms, a ping every idle second, a dead peer after about ten) and
the write side: whole frames only, a batch at a time, and no batch before the transport has
taken the last one, so that a slow reader's backlog stays in the log. What is said is the
talk's business.

aiohttp's own writer is not used for data: see ``framing``. Its heartbeat is, because it alone
sees bytes of an unfinished message, and any byte counts as liveness.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from aiohttp import WSMessage, WSMsgType, web

from holdfast_protocol.errors import CloseCode, RemoteError
from holdfast_protocol.frames import Bye, ByeReason
from holdfast_protocol.pieces import Buffer, gather

from ..sessions import Attachment
from .framing import Opcode, frame_head
from .talk import StreamTalk, Talk

_log = structlog.get_logger(__name__)

ACK_DELAY: Final = 0.05
IDLE_PING: Final = 1.0
#: aiohttp pings after this many silent seconds and gives up half as many later: 10.2 s.
HEARTBEAT: Final = 6.8
RESUME_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 2.0
WRITE_BUFFER: Final = 512 * 1024
#: A close frame has room for this much of a reason (RFC 6455, 5.5.1).
_CLOSE_TEXT: Final = 123
_ENDS: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})


class Connection(Attachment):
    """Runs one websocket until it ends. Made per request; ``run`` once."""

    def __init__(self, ws: web.WebSocketResponse, talk: Talk, tunnel: str | None) -> None:
        self.tunnel = tunnel
        self._ws = ws
        self._talk = talk
        self._wakeup = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._dismissed = False
        self._close_timer: asyncio.TimerHandle | None = None
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._last_write = self._loop.time()
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        state = "dismissed" if self._dismissed else "live"
        return f"<Connection {self.tunnel} {state} {self._talk}>"

    # --- Attachment ---

    def wake(self) -> None:
        self._wakeup.set()

    def dismiss(
        self, reason: ByeReason, code: CloseCode, detail: str, *, come_back: bool = False
    ) -> None:
        if self._dismissed:
            return
        frames = self._talk.farewell(Bye(reason, come_back, detail))
        self._write(frames)
        plain_end = not come_back and not isinstance(self._talk, StreamTalk)
        # 1000 is what makes a browser's client stay away
        self._close(1000 if plain_end else code, detail)

    # --- life ---

    async def run(self, request: web.Request) -> None:
        """Serve until the websocket is closed by either side. Cleans up whatever happens."""
        payload_writer = await self._ws.prepare(request)
        transport = self._transport = request.transport
        if transport is None:
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        writer = self._loop.create_task(self._write_loop(payload_writer.drain))
        resume_timer = self._loop.call_later(RESUME_TIMEOUT, self._check_resumed)
        self._ping_timer = self._loop.call_later(IDLE_PING, self._ping_when_idle)
        try:
            self._talk.begin(self)
            await self._read_loop()
        finally:
            self._dismissed = True
            for timer in (resume_timer, self._ping_timer, self._ack_timer, self._close_timer):
                if timer is not None:
                    timer.cancel()
            writer.cancel()
            self._talk.hub.detached(self._talk.session, self)
            transport.close()
            self._ended.set()
            await asyncio.gather(writer, return_exceptions=True)

    async def _read_loop(self) -> None:
        while True:
            message = await self._ws.receive()
            if message.type in _ENDS:
                if message.type is WSMsgType.CLOSE:
                    self.left = True
                    self._close(int(message.data or 1000), "")
                elif message.type is WSMsgType.ERROR:
                    # broken frames, or a message above the bound: aiohttp has closed with
                    # 1002, 1007 or 1009, which a peer in the middle of sending may not see
                    _log.warning("connection.broken", who=repr(self), why=str(message.data))
                return
            if self._dismissed:
                continue  # what a replaced connection still says is not the session's
            try:
                self._take(message)
            except RemoteError as error:
                _log.warning("connection.refused", who=repr(self), why=str(error))
                self._close(error.close_code, str(error))

    def _take(self, message: WSMessage) -> None:
        kind = message.type
        if kind is WSMsgType.BINARY:
            self._take_binary(message.data)
        elif kind is WSMsgType.TEXT:
            self._talk.text(message.data)
        elif kind is WSMsgType.PING:
            self._write([frame_head(Opcode.PONG, len(message.data)), bytes(message.data)])
        elif kind is WSMsgType.PONG:
            self._talk.pong(bytes(message.data))

    def _take_binary(self, data: bytes) -> None:
        turned = self._talk.binary(data, self)
        if turned is not None:
            _log.info("connection.turned_away", who=repr(self), why=turned.message)
            self._write([frame_head(Opcode.BINARY, len(turned.bye)), turned.bye])
            self._close(turned.close_code, turned.message)
        elif self._talk.ack_due:
            self._write_ack()
        elif self._talk.ack_pending and self._ack_timer is None:
            self._ack_timer = self._loop.call_later(ACK_DELAY, self._write_ack)

    async def _write_loop(self, drain: Callable[[], Awaitable[None]]) -> None:
        try:
            while not self._dismissed:
                self._wakeup.clear()
                frames = self._talk.output()
                if frames:
                    self._write(frames)
                    await drain()
                    await asyncio.sleep(0)  # the reader's turn, also when nobody pauses us
                elif (last := self._talk.ended()) is not None:
                    self._write(last)
                    self.dismiss(ByeReason.GONE, CloseCode.GONE, self._reason())
                else:
                    await self._wakeup.wait()
        except ConnectionError:
            self.abort()
        except Exception:
            # the outer edge of this connection: the client comes back and asks again
            _log.exception("connection.failed", who=repr(self))
            self._close(CloseCode.INTERNAL, "the keeper failed on this connection")

    def abort(self) -> None:
        """Drop the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_ended(self) -> None:
        """Until ``run`` is over."""
        await self._ended.wait()

    # --- inside ---

    def _reason(self) -> str:
        return self._talk.hub.host.info().reason or "the kernel is dead"

    def _write(self, frames: Sequence[Buffer]) -> None:
        transport = self._transport
        if frames and transport is not None and not transport.is_closing():
            transport.writelines(gather(frames))
            self._last_write = self._loop.time()

    def _write_ack(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        if not self._dismissed:
            self._write(self._talk.take_ack())

    def _ping_when_idle(self) -> None:
        if self._dismissed:
            return
        now = self._loop.time()
        if now - self._last_write >= IDLE_PING:
            self._write([frame_head(Opcode.PING, 0)])
        due = max(self._last_write + IDLE_PING, now + IDLE_PING / 20)
        self._ping_timer = self._loop.call_at(due, self._ping_when_idle)

    def _check_resumed(self) -> None:
        if self._talk.session.attachment is not self and not self._dismissed:
            self._close(CloseCode.BAD_FRAME, "no RESUME came")

    def _close(self, code: int, reason: str) -> None:
        """Send the close frame; the read loop discards what comes until the peer's.

        aiohttp's ``close`` is not used: while a ``receive`` waits it closes the TCP connection
        at once, and a proxy in between may then lose what we just wrote.
        """
        if self._dismissed:
            return
        self._dismissed = True
        self._wakeup.set()
        # Nothing may follow a close frame (RFC 6455, 5.5.1), aiohttp's own pings included; there
        # is no public way to end them but ``close``, see above.
        self._ws._cancel_heartbeat()  # noqa: SLF001
        text = reason.encode()[:_CLOSE_TEXT].decode("utf-8", "ignore").encode()
        payload = struct.pack(">H", code) + text
        self._write([frame_head(Opcode.CLOSE, len(payload)), payload])
        self._close_timer = self._loop.call_later(CLOSE_TIMEOUT, self.abort)
