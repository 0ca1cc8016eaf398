"""A keeper and proxies in front of it, in this process, with a cut at any point of the stream.

The keeper's end is the protocol's own ``SessionStream`` over a log in memory; the kernel is a
handful of commands (``print``, ``input``, ``big``). Each ``FakeGateway`` is one proxy: it can be
killed, frozen, told to answer with an error, or to cut its websockets at the n-th frame.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import WSMsgType, web

from holdfast_protocol.errors import RemoteError
from holdfast_protocol.frames import (
    STREAM_SUBPROTOCOL,
    Bye,
    ByeReason,
    Resume,
    decode,
)
from holdfast_protocol.jupyter import Message, decode_v1, encode_v1
from holdfast_protocol.log import LogIndex, Loss
from holdfast_protocol.stream.keeper import Accepted, Refused, SessionStream
from support.processes import free_port

_TIME = "2026-01-01T00:00:00.000000Z"


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
        return self._bytes[seq]

    def read_part(self, seq: int, offset: int, length: int) -> list[memoryview]:
        return [memoryview(self._bytes[seq])[offset : offset + length]]


class FakeKernel:
    """A kernel and its keeper. ``executed`` is what a side file would hold."""

    def __init__(self, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        self.executed: list[str] = []
        self.received: list[Message] = []
        self.acknowledged = 0
        self.changed = asyncio.Condition()
        self._waiting_input: dict[str, Message] = {}
        self._numbers = 0
        self._running: set[asyncio.Task[None]] = set()
        self.wake: set[Callable[[], None]] = set()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """What a new keeper begins with: another epoch, an empty log, no sessions."""
        self.epoch = os.urandom(16)
        self.log = MemoryLog()
        self.sessions: dict[str, SessionStream] = {}

    def session(self, session_id: str) -> SessionStream:
        if session_id not in self.sessions:
            self.sessions[session_id] = SessionStream(
                session_id, self.log, epoch=self.epoch, notices=self._notices
            )
        return self.sessions[session_id]

    def _notices(self, loss: Loss) -> list[bytes]:
        """A line for each cell that was there when the loss was (here: for all)."""
        header = {"msg_id": "n", "msg_type": "stream", "session": "kernel"}
        content = {"name": "stderr", "text": f"{loss.count} messages lost: {loss.reason}\n"}
        return [
            encode_v1(
                Message.from_dicts(
                    channel="iopub", header=header, parent=request.header_dict, content=content
                )
            )
            for request in self.received
        ]

    def publish(
        self, msg_type: str, content: dict[str, Any], parent: Message | None = None,
        *, channel: str = "iopub", audience: str | None = None, buffers: tuple[bytes, ...] = (),
    ) -> None:  # fmt: skip
        self._numbers += 1
        header = {"msg_id": f"k_{self._numbers}", "msg_type": msg_type, "session": "kernel",
                  "username": "kernel", "date": _TIME, "version": "5.3"}  # fmt: skip
        message = Message.from_dicts(
            channel=channel, header=header, parent=parent.header_dict if parent else {},
            content=content, buffers=buffers,
        )  # fmt: skip
        self.log.append(encode_v1(message), audience)
        for wake in list(self.wake):
            wake()

    def status(self, state: str, parent: Message | None = None) -> None:
        self.publish("status", {"execution_state": state}, parent)

    def accept(self, session_id: str, message: Message) -> None:
        self.received.append(message)
        if message.msg_type == "execute_request":
            code = str(message.content_dict()["code"])
            self.executed.append(code)
            task = asyncio.ensure_future(self._execute(session_id, message, code))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        elif message.msg_type == "input_reply":
            value = str(message.content_dict()["value"])
            asked = self._waiting_input.pop(session_id)
            self.publish("stream", {"name": "stdout", "text": f"got {value}\n"}, asked)
            self._finish(session_id, asked)
        asyncio.ensure_future(self.notify())  # noqa: RUF006 - only wakes waiters

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def wait_for(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(condition)

    async def _execute(self, session_id: str, message: Message, code: str) -> None:
        command, *words = code.split()
        self.status("busy", message)
        if command == "print":
            for number in range(int(words[0])):
                text = {"name": "stdout", "text": f"{number}\n"}
                self.publish("stream", text, message)
                if len(words) > 1:
                    await asyncio.sleep(float(words[1]))
        elif command == "big":
            self.publish("display_data", {"data": {}}, message, buffers=(b"x" * int(words[0]),))
        elif command == "input":
            self._waiting_input[session_id] = message
            self.publish("input_request", {"prompt": "? ", "password": False}, message,
                         channel="stdin", audience=session_id)  # fmt: skip
            return
        elif command == "forever":
            return
        self._finish(session_id, message)

    def _finish(self, session_id: str, message: Message) -> None:
        self.publish("execute_reply", {"status": "ok", "execution_count": 1}, message,
                     channel="shell", audience=session_id)  # fmt: skip
        self.status("idle", message)


class FakeGateway:
    """One proxy on a port of its own, in front of kernels that several of them share."""

    def __init__(self, kernels: dict[str, FakeKernel], *, subprotocol: str = STREAM_SUBPROTOCOL):
        self.kernels = kernels
        self.subprotocol = subprotocol
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.authorizations: set[str] = set()
        self.peers: list[FakeGateway] = [self]
        self.upgrades = 0
        self.answer: tuple[int, dict[str, str]] | None = None
        self.swallow_next_answer = False
        self.cut_at: Iterator[int] = iter(())
        self.frames = 0
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self.connections: set[_StreamConnection] = set()
        self._transports: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None
        self._next_cut: int | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    async def start(self) -> FakeGateway:
        """Listen; on the same port as before when it ran already."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/api/kernels/{id}/channels", self._channels)
        app.router.add_route("*", "/{path:.*}", self._rest)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port = self.port or free_port()
        listener.bind(("127.0.0.1", self.port))
        await web.SockSite(self._runner, listener, ssl_context=self.tls).start()
        self._next_cut = next(self.cut_at, None)
        return self

    async def kill(self) -> None:
        """As kill -9: every connection is reset, nobody listens."""
        self.abort_all()
        self.thawed.set()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def abort_all(self) -> None:
        for transport in list(self._transports):
            transport.abort()

    def freeze(self) -> None:
        """As SIGSTOP: connections stay, nothing is read or answered."""
        self.thawed.clear()
        for transport in self._transports:
            transport.pause_reading()

    def thaw(self) -> None:
        self.thawed.set()
        for transport in self._transports:
            if not transport.is_closing():
                transport.resume_reading()

    def count(self, method: str, suffix: str) -> int:
        return sum(m == method and p.endswith(suffix) for m, p, _ in self.calls)

    async def _rest(self, request: web.Request) -> web.Response:
        await self.thawed.wait()
        path, method = request.path, request.method
        body = json.loads(await request.text() or "{}")
        headers = {name: request.headers.getall(name) for name in request.headers}
        self.authorizations.add(request.headers.get("Authorization", ""))
        self.calls.append((method, path, {"body": body, "headers": headers}))
        if self.answer is not None:
            status, extra = self.answer
            return web.json_response({"message": "as told"}, status=status, headers=extra)
        response = self._respond(method, path, body)
        if self.swallow_next_answer and method != "GET":
            self.swallow_next_answer = False
            assert request.transport is not None
            request.transport.abort()
        return response

    def _respond(self, method: str, path: str, body: dict[str, Any]) -> web.Response:
        if path == "/holdfast/v1/endpoints" and self.subprotocol == STREAM_SUBPROTOCOL:
            proxies = [{"id": str(p.port), "url": p.url} for p in self.peers]
            return web.json_response({"proxies": proxies, "self": str(self.port)})
        if path == "/livez":
            return web.json_response({})
        if path == "/api/kernelspecs":
            spec = {"display_name": "Fake", "language": "python", "argv": []}
            specs = {"fake": {"name": "fake", "spec": spec, "resources": {}}}
            return web.json_response({"default": "fake", "kernelspecs": specs})
        if path == "/api/kernels" and method == "POST":
            kernel_id = body["env"]["KERNEL_ID"]
            self.kernels.setdefault(kernel_id, FakeKernel(kernel_id))
            return web.json_response(_model(kernel_id), status=201)
        if path == "/api/kernels":
            return web.json_response([_model(kernel_id) for kernel_id in self.kernels])
        parts = path.split("/")
        if parts[1:3] != ["api", "kernels"] or parts[3] not in self.kernels:
            return web.json_response({"message": "no such thing"}, status=404)
        if method == "DELETE":
            del self.kernels[parts[3]]
            return web.Response(status=204)
        return web.json_response(_model(parts[3]))

    async def _channels(self, request: web.Request) -> web.StreamResponse:
        await self.thawed.wait()
        self.upgrades += 1
        self.authorizations.add(request.headers.get("Authorization", ""))
        if self.answer is not None:
            status, extra = self.answer
            return web.json_response({"message": "as told"}, status=status, headers=extra)
        kernel = self.kernels.get(request.match_info["id"])
        if kernel is None:
            return web.json_response({"message": "no such kernel"}, status=404)
        protocols = (self.subprotocol,) if self.subprotocol else ()
        ws = web.WebSocketResponse(protocols=protocols, max_msg_size=0, compress=False)
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        self._transports.add(request.transport)
        try:
            session_id = request.query.get("session_id", "")
            if self.subprotocol == STREAM_SUBPROTOCOL:
                connection = _StreamConnection(self, kernel, session_id, ws, request.transport)
                self.connections.add(connection)
                try:
                    await connection.run()
                finally:
                    self.connections.discard(connection)
            else:
                await self._plain(kernel, session_id, ws)
        except (ConnectionError, RuntimeError):
            pass  # cut
        finally:
            self._transports.discard(request.transport)
        return ws

    async def _plain(self, kernel: FakeKernel, session_id: str, ws: web.WebSocketResponse) -> None:
        """The standard protocol: from the head, with no memory."""
        position, news = kernel.log.index.head, asyncio.Event()
        kernel.log.index.add_session(session_id)
        kernel.wake.add(news.set)

        async def write() -> None:
            nonlocal position
            while True:
                while (entry := kernel.log.index.next_for(session_id, position)) is not None:
                    position = entry.seq
                    await ws.send_bytes(kernel.log.read(entry.seq))
                news.clear()
                await news.wait()

        writer = asyncio.ensure_future(write())
        try:
            async for message in ws:
                if message.type is WSMsgType.BINARY:
                    kernel.accept(session_id, decode_v1(message.data))
        finally:
            writer.cancel()
            kernel.wake.discard(news.set)

    def frame_passes(self) -> bool:
        """Count one frame, in either direction; False: cut here."""
        self.frames += 1
        if self._next_cut is not None and self.frames >= self._next_cut:
            self._next_cut = next(self.cut_at, None)
            return False
        return True


class _StreamConnection:
    """One websocket of v1.stream.holdfast."""

    def __init__(
        self, gateway: FakeGateway, kernel: FakeKernel, session_id: str,
        ws: web.WebSocketResponse, transport: asyncio.Transport,
    ) -> None:  # fmt: skip
        self._gateway, self._kernel, self._ws = gateway, kernel, ws
        self._session_id, self._transport = session_id, transport
        self._news = asyncio.Event()
        self._stream: SessionStream | None = None

    async def run(self) -> None:
        first = await self._ws.receive()
        if first.type is not WSMsgType.BINARY:
            return  # another endpoint won the race for this client
        frame = decode(first.data)
        assert isinstance(frame, Resume)
        self._stream = stream = self._kernel.session(self._session_id)
        attached = stream.attach(frame)
        if isinstance(attached, Refused):
            await self._ws.send_bytes(attached.bye)
            await self._ws.close(code=int(attached.close_code))
            return
        for data in attached.frames:
            await self._send(data)
        self._kernel.wake.add(self._news.set)
        writer = asyncio.ensure_future(self._write())
        try:
            await self._read(stream)
        finally:
            writer.cancel()
            self._kernel.wake.discard(self._news.set)

    async def _read(self, stream: SessionStream) -> None:
        async for message in self._ws:
            if message.type is not WSMsgType.BINARY:
                continue
            await self._gateway.thawed.wait()
            before = self._gateway.frame_passes()
            after = before and self._gateway.frame_passes()
            if not before:
                self._transport.abort()
                return
            try:
                self._take(stream, message.data)
            except RemoteError as error:
                await self._ws.close(code=int(error.close_code))
                return
            if not after:
                self._transport.abort()
                return
            self._news.set()

    def _take(self, stream: SessionStream, data: bytes) -> None:
        for event in stream.receive(data):
            if isinstance(event, Accepted):
                self._kernel.accept(self._session_id, decode_v1(event.message))
            else:
                self._kernel.acknowledged = event.seq
                asyncio.ensure_future(self._kernel.notify())  # noqa: RUF006 - wakes waiters

    async def _write(self) -> None:
        stream = self._stream
        assert stream is not None
        while True:
            ack = stream.take_ack()
            if ack is not None:
                await self._send(ack)
            frame = stream.next_frame()
            if frame is not None:
                await self._send(frame)
                continue
            self._news.clear()
            if not stream.has_more:
                await self._news.wait()

    async def _send(self, data: bytes) -> None:
        await self._gateway.thawed.wait()
        if not self._gateway.frame_passes():
            self._transport.abort()
            raise ConnectionResetError("cut")
        await self._ws.send_bytes(data)

    async def bye(self, reason: ByeReason, *, come_back: bool, detail: str, code: int) -> None:
        await self._ws.send_bytes(Bye(reason, come_back, detail).encode())
        await self._ws.close(code=code)


def _model(kernel_id: str) -> dict[str, Any]:
    return {"id": kernel_id, "name": "fake", "last_activity": _TIME,
            "execution_state": "idle", "connections": 1}  # fmt: skip
