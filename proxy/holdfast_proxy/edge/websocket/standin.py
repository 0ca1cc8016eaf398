"""What answers a client's websocket while no keeper can: the kernel is queued, starting or dead.

Accepts the connection, says why there is nothing yet in the cells that wait, and holds what the
client sends, bounded in bytes, *without acknowledging it*. When a keeper appears it steps aside:

- a stream client (the shim) is closed with 1012; it was never answered RESUMED, so it comes back
  and sends everything again, to the keeper;
- a plain client cannot send again, so what it sent is given to the keeper first, in order, and
  the connection goes on as a relay.

Invariant: every message held is either given to a keeper or, if it is a cell, answered with an
error; none is dropped in silence. Must not decide whether a kernel lives: ``Cluster.locate`` does.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog
from aiohttp import WSMessage, WSMsgType, web

from holdfast_protocol.errors import CloseCode
from holdfast_protocol.frames import STREAM_SUBPROTOCOL, Bye, ByeReason
from holdfast_protocol.jupyter import Message

from ...cluster import Dead, KeeperEndpoint, Waiting
from ...errors import NotFound, ProxyError
from ..context import Edge
from ..tunnel.dial import KeeperUnreachable, tune
from ..tunnel.handshake import ClientUpgrade
from .relay import Upstream, forward, forward_all
from .standin_messages import Writer, encode, read_request

#: How often the kernel's record is looked at when nothing wakes us, in seconds.
POLL_SECONDS: Final = 1.0
#: How long a client has to prove that it is still there, after this proxy was frozen.
PROOF_SECONDS: Final = 5.0
_HEARTBEAT_SECONDS: Final = 30.0
_CLOSE_SECONDS: Final = 1.0
_NONCE: Final = b"holdfast-standin"
_log: Final = structlog.get_logger("holdfast.standin")


class Standin:
    """One client's connection until a keeper takes it, or the kernel is dead."""

    def __init__(
        self, edge: Edge, kernel_id: str, user: str | None, upgrade: ClientUpgrade, *, grants: str
    ) -> None:
        self._edge = edge
        self._kernel_id = kernel_id
        self._user = user
        self._upgrade = upgrade
        self._grants = grants
        self._socket = web.WebSocketResponse(
            protocols=upgrade.subprotocols,
            timeout=_CLOSE_SECONDS,
            heartbeat=_HEARTBEAT_SECONDS,
            autoping=False,
            compress=False,
            max_msg_size=edge.config.standin_bytes,
        )
        self._held: list[WSMessage] = []
        self._held_bytes = 0
        self._cells: list[Message] = []
        self._reason = ""
        self._upstream: Upstream | None = None
        self._mark = edge.clock.mark()
        self._proof = asyncio.Event()
        #: Held while messages are being given to the keeper: what comes later must wait.
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Standin {self._kernel_id} {len(self._held)} held: {self._reason}>"

    async def serve(self, request: web.Request, located: Waiting | Dead) -> web.StreamResponse:
        """Accept the websocket and stay until it ends."""
        await self._socket.prepare(request)
        if request.transport is not None:
            tune(request.transport)
        self._edge.standins.add(self)
        reader = asyncio.create_task(self._read_client())
        keeper = asyncio.create_task(self._stand_in(request, located))
        try:
            done, _ = await asyncio.wait({reader, keeper}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ConnectionError:
            pass  # one side is gone in the middle of a write; below, the other one is told
        finally:
            self._edge.standins.discard(self)
            for task in (reader, keeper):
                task.cancel()
            await asyncio.gather(reader, keeper, return_exceptions=True)
            # By itself aiohttp would close with 1000, which JupyterLab never comes back from.
            await self._socket.close(code=CloseCode.COME_BACK)
            if self._upstream is not None:
                await self._upstream.close()
        return self._socket

    async def step_aside(self) -> None:
        """This proxy shuts down: the client is to come back to another one at once."""
        if self._upstream is None:
            await self._end(
                CloseCode.COME_BACK, "this proxy shut down before the kernel was ready: run again"
            )

    @property
    def _is_stream(self) -> bool:
        return self._socket.ws_protocol == STREAM_SUBPROTOCOL

    async def _read_client(self) -> None:
        while True:
            message = await self._socket.receive()
            async with self._turn:
                if self._upstream is not None and self._upstream.socket is not None:
                    if not await forward(message, self._upstream.socket):
                        return
                elif message.type is WSMsgType.PING:
                    await self._socket.pong(message.data)
                elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    if not await self._hold(message):
                        return
                elif message.type is WSMsgType.PONG:
                    if message.data == _NONCE:
                        self._proof.set()
                else:
                    return

    async def _hold(self, message: WSMessage) -> bool:
        if self._is_stream:
            return True  # its sender keeps it: nothing was accepted
        self._held.append(message)
        self._held_bytes += len(message.data)
        cell = read_request(self._socket.ws_protocol, message.data)
        if cell is not None:
            self._cells.append(cell)
        if self._held_bytes > self._edge.config.standin_bytes:
            await self._end(CloseCode.OVERLOAD, "too much was sent before the kernel was ready")
            return False
        if cell is not None:
            await self._write(_writer().stream(_note(self._reason), cell))
        return True

    async def _stand_in(self, request: web.Request, located: Waiting | Dead) -> None:
        state: Waiting | Dead | KeeperEndpoint = located
        while True:
            if isinstance(state, Dead):
                return await self._say_dead(state.reason)
            if isinstance(state, Waiting):
                await self._explain(state.reason)
                state = await self._next_state()
            elif self._is_stream:
                await self._socket.close(code=CloseCode.COME_BACK, message=b"the kernel is ready")
                return None
            elif not await self._is_there():
                return await self._end(CloseCode.COME_BACK, "this proxy was frozen: run again")
            else:
                try:
                    return await self._hand_over(request, state)
                except KeeperUnreachable as error:
                    await self._edge.cluster.report_unreachable(state, str(error))
                    state = Waiting("the kernel's keeper cannot be reached yet")

    async def _next_state(self) -> Waiting | Dead | KeeperEndpoint:
        cluster = self._edge.cluster
        try:
            await cluster.wait_changed(self._kernel_id, POLL_SECONDS)
        except ProxyError:
            await asyncio.sleep(POLL_SECONDS)
        try:
            return await cluster.locate(self._kernel_id, self._user)
        except NotFound:
            return Dead("the kernel does not exist any more")
        except ProxyError as error:
            return Waiting(error.message)

    async def _explain(self, reason: str) -> None:
        if reason == self._reason:
            return
        self._reason = reason
        _log.info("standing in", kernel_id=self._kernel_id, reason=reason)
        for cell in self._cells:
            await self._write(_writer().stream(_note(reason), cell))

    async def _is_there(self) -> bool:
        """Whether the client is still at the other end.

        After a freeze it has perhaps gone and come back by another proxy; to open its session at
        the keeper now would take the kernel from its new connection.
        """
        if not self._edge.clock.stalled_since(self._mark):
            return True
        await self._socket.ping(_NONCE)
        try:
            await asyncio.wait_for(self._proof.wait(), PROOF_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _hand_over(self, request: web.Request, endpoint: KeeperEndpoint) -> None:
        """Give the keeper what was held, then relay until either side ends."""
        entry = self._edge.tunnels.open(endpoint)
        upstream = Upstream(endpoint)
        try:
            headers = {
                "Holdfast-Tunnel": entry.id,
                "Holdfast-User": self._user or "",
                "Holdfast-Grants": self._grants,
            }
            keeper = await upstream.open(
                subprotocol=self._socket.ws_protocol,
                session_id=self._upgrade.session_id,
                headers=headers,
            )
            if request.transport is not None:
                entry.abort = request.transport.abort
            async with self._turn:
                self._upstream = upstream
                try:
                    for message in self._held:
                        await forward(message, keeper)
                except ConnectionError:
                    return await self._end(
                        CloseCode.COME_BACK,
                        "the kernel's keeper broke off: this may not have run, run it again",
                    )
                self._held.clear()
                self._cells.clear()
            code = await forward_all(keeper, self._socket)
            await self._socket.close(code=code)
        finally:
            self._edge.tunnels.close(entry)

    async def _say_dead(self, reason: str) -> None:
        if self._is_stream:
            await self._socket.send_bytes(Bye(ByeReason.GONE, False, reason).encode())
            await self._socket.close(code=CloseCode.GONE, message=_short(reason))
            return
        writer = _writer()
        parents: list[Message | None] = [*self._cells]
        for parent in parents or [None]:
            await self._write(writer.stream(f"holdfast: the kernel is dead: {reason}\n", parent))
        await self._fail_cells("HoldfastDead", reason)
        await self._write(writer.status("dead"))
        await self._socket.close(code=CloseCode.INTERNAL, message=_short(reason))

    async def _end(self, code: CloseCode, reason: str) -> None:
        await self._fail_cells("HoldfastNotRun", reason)
        await self._socket.close(code=code, message=_short(reason))

    async def _fail_cells(self, ename: str, reason: str) -> None:
        writer = _writer()
        for cell in self._cells:
            for message in writer.failure(cell, ename, reason):
                await self._write(message)
        self._cells.clear()

    async def _write(self, message: Message) -> None:
        data = encode(self._socket.ws_protocol, message)
        if isinstance(data, str):
            await self._socket.send_str(data)
        else:
            await self._socket.send_bytes(data)


def _writer() -> Writer:
    return Writer(datetime.now(UTC))


def _note(reason: str) -> str:
    return f"holdfast: waiting for the kernel: {reason}\n"


def _short(reason: str) -> bytes:
    """A close frame's reason has at most 123 bytes (RFC 6455 section 5.5)."""
    return reason.encode()[:120].decode(errors="ignore").encode()
