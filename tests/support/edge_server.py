"""A proxy's edge on a loopback socket in this process, with a fake cluster behind it."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from holdfast_proxy.config import ProxyConfig, Secret
from holdfast_proxy.edge.app import build_app
from holdfast_proxy.edge.arrival import ArrivalClock
from holdfast_proxy.edge.context import EDGE, Edge
from support.fake_cluster import FakeCluster

TOKEN = "client-token"
AUTH = {"Authorization": f"token {TOKEN}"}


@dataclass
class EdgeServer:
    """Where it listens, and what is behind it."""

    port: int
    cluster: FakeCluster
    edge: Edge
    site: web.SockSite
    base: str
    app: web.Application

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.base}"

    def channels_url(self, kernel_id: str) -> str:
        return f"{self.url}api/kernels/{kernel_id}/channels"


@asynccontextmanager
async def serve_edge(
    cluster: FakeCluster,
    *,
    clock: ArrivalClock | None = None,
    tls: ssl.SSLContext | None = None,
    config: ProxyConfig | None = None,
) -> AsyncIterator[EdgeServer]:
    """Serve ``cluster`` until the block ends; by default one user with ``TOKEN``."""
    config = config or ProxyConfig(token=Secret(TOKEN), cluster_key=Secret("cluster-key"))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    app = build_app(cluster, config.bound(port), clock=clock)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.SockSite(runner, listening, ssl_context=tls)
    await site.start()
    try:
        yield EdgeServer(port, cluster, app[EDGE], site, config.base_url, app)
    finally:
        app[EDGE].tunnels.abort_all()
        await runner.cleanup()


@dataclass
class RawClient:
    """A client's upgraded connection as bytes: no websocket library in between."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int
    headers: dict[str, str]

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.readexactly(count)

    async def read_end(self) -> bytes:
        """Everything up to the end, an orderly one or a reset."""
        pieces = []
        async with asyncio.timeout(20):
            try:
                while piece := await self.reader.read(65536):
                    pieces.append(piece)
            except ConnectionError:
                pass
        return b"".join(pieces)

    def close(self) -> None:
        self.writer.transport.abort()


async def upgrade(
    server: EdgeServer,
    kernel_id: str,
    *,
    query: str = "?session_id=s1",
    headers: dict[str, str] | None = None,
    early: bytes = b"",
    tls: ssl.SSLContext | None = None,
    rcvbuf: int | None = None,
) -> RawClient:
    """Ask for an upgrade and read the answer's head. ``early`` goes right behind the request."""
    sock = socket.socket()
    if rcvbuf is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=tls, server_hostname="" if tls is not None else None
    )
    lines = {
        "Host": f"127.0.0.1:{server.port}",
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **AUTH,
        **(headers or {}),
    }
    head = f"GET {server.base}api/kernels/{kernel_id}/channels{query} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    writer.write(head.encode() + early)
    async with asyncio.timeout(10):
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    status_line, *rest = answer.rstrip("\r\n").split("\r\n")
    found = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in rest)}
    return RawClient(reader, writer, int(status_line.split(" ")[1]), found)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition that nothing announces; TimeoutError when it does not come."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (the state of real sockets has no event)
            await asyncio.sleep(0.005)
