"""A notebook server in memory's reach: contents, sessions, kernels, websockets that can be cut.

A test says what each execute request brings; nothing is executed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from holdfast_protocol.jupyter import V1_SUBPROTOCOL, Message, decode_v1, encode_v1

TOKEN = "fake-token"
#: Gets the request and a function that sends (channel, type, content) as an answer to it.
Answer = Callable[[str, Callable[[str, str, dict[str, Any]], Awaitable[None]]], Awaitable[None]]


async def good_answer(
    code: str, send: Callable[[str, str, dict[str, Any]], Awaitable[None]]
) -> None:
    """Busy, reply, idle."""
    del code
    await send("iopub", "status", {"execution_state": "busy"})
    await send("shell", "execute_reply", {"status": "ok", "execution_count": 1})
    await send("iopub", "status", {"execution_state": "idle"})


class FakeNotebookServer:
    """``answer`` may be changed at any time; ``kernels`` are the ids that live."""

    def __init__(self) -> None:
        self.answer: Answer = good_answer
        self.codes: list[str] = []
        self.kernels: list[str] = []
        self.contents: dict[str, Any] = {}
        self.refused_starts = 0
        self.sockets: list[web.WebSocketResponse] = []
        self.url = ""

    def __repr__(self) -> str:
        return f"<FakeNotebookServer {self.url} {self.kernels}>"

    async def cut(self) -> None:
        """Close every websocket as a server that goes on does."""
        for socket in self.sockets:
            await socket.close(code=1012)

    async def broadcast(self, msg_type: str, content: dict[str, Any]) -> None:
        for socket in self.sockets:
            if not socket.closed:
                await socket.send_bytes(encode_v1(_message("iopub", msg_type, content, {})))

    def routes(self) -> list[web.RouteDef]:
        return [
            web.put("/api/contents/{path}", self._put),
            web.post("/api/sessions", self._session),
            web.post("/api/kernels", self._start),
            web.get("/api/kernels/{id}", self._kernel),
            web.get("/api/kernels/{id}/channels", self._channels),
        ]

    async def _put(self, request: web.Request) -> web.Response:
        self.contents[request.match_info["path"]] = (await request.json())["content"]
        return web.json_response({}, status=201)

    async def _session(self, request: web.Request) -> web.Response:
        return web.json_response({"kernel": {"id": self._new_kernel()}}, status=201)

    async def _start(self, request: web.Request) -> web.Response:
        if self.refused_starts:
            self.refused_starts -= 1
            return web.Response(status=503, text="no gateway")
        return web.json_response({"id": self._new_kernel()}, status=201)

    async def _kernel(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["id"] in self.kernels else 404)

    async def _channels(self, request: web.Request) -> web.WebSocketResponse:
        assert request.headers["Authorization"] == f"token {TOKEN}"
        socket = web.WebSocketResponse(protocols=(V1_SUBPROTOCOL,))
        await socket.prepare(request)
        self.sockets.append(socket)
        async for frame in socket:
            asked = decode_v1(frame.data)

            async def send(
                channel: str, kind: str, content: dict[str, Any], parent: Message = asked
            ) -> None:
                answer = _message(channel, kind, content, parent.header_dict)
                await self.sockets[-1].send_bytes(encode_v1(answer))

            self.codes.append(asked.content_dict()["code"])
            await self.answer(self.codes[-1], send)
        return socket

    def _new_kernel(self) -> str:
        self.kernels.append(f"kernel-{len(self.kernels) + 1}")
        return self.kernels[-1]


def _message(
    channel: str, msg_type: str, content: dict[str, Any], parent: dict[str, Any]
) -> Message:
    header = {"msg_type": msg_type, "msg_id": "x"}
    return Message.from_dicts(channel=channel, header=header, parent=parent, content=content)


@asynccontextmanager
async def fake_notebook_server() -> AsyncIterator[FakeNotebookServer]:
    """On loopback, on a free port."""
    server = FakeNotebookServer()
    app = web.Application()
    app.add_routes(server.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
