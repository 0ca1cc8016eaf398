"""A kernel's log and output through the edge: whose it is, what is passed on, what breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from holdfast_proxy.cluster import Dead, KeeperEndpoint, Waiting
from holdfast_proxy.errors import Unavailable
from support.edge_server import AUTH, serve_edge
from support.fake_cluster import FakeCluster

KERNEL = "11111111-1111-4111-8111-111111111111"


class LogKeeper:
    """Answers /v1/log with ``pieces``; ``broken``: it breaks off after them."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = [b'{"seq":1}\n', b'{"seq":2}\n']
        self.broken = False
        self.status = 200
        self.asked: list[tuple[dict[str, str], str]] = []

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[KeeperEndpoint]:
        app = web.Application()
        app.router.add_get("/v1/log", self._log)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield KeeperEndpoint(KERNEL, "127.0.0.1", port, None, "keeper-secret")
        finally:
            await runner.cleanup()

    async def _log(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((dict(request.query), request.headers.get("Authorization", "")))
        if self.status != 200:
            return web.Response(status=self.status)
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in self.pieces:
            await response.write(piece)
        if self.broken:
            assert request.transport is not None
            request.transport.abort()
        return response


@pytest.fixture
def keeper() -> LogKeeper:
    return LogKeeper()


async def read(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession(headers=AUTH) as http, http.get(url) as answer:
        return answer.status, await answer.read()


async def test_the_log_is_passed_through(cluster: FakeCluster, keeper: LogKeeper) -> None:
    async with keeper.serve() as endpoint, serve_edge(cluster) as server:
        cluster.add(KERNEL, located=endpoint)
        url = f"{server.url}api/kernels/{KERNEL}/log?from=7&limit=9&session=s&other=x"
        assert await read(url) == (200, b'{"seq":1}\n{"seq":2}\n')
    query, authorization = keeper.asked[0]
    assert query == {"from": "7", "limit": "9", "session": "s"}
    assert authorization == "Bearer keeper-secret", "never the client's own"


async def test_a_large_log_comes_whole(cluster: FakeCluster, keeper: LogKeeper) -> None:
    keeper.pieces = [b"x" * 1_000_000 + b"\n"] * 8
    async with keeper.serve() as endpoint, serve_edge(cluster) as server:
        cluster.add(KERNEL, located=endpoint)
        status, body = await read(f"{server.url}api/kernels/{KERNEL}/log")
    assert (status, len(body)) == (200, 8_000_008)


async def test_another_users_log_is_404(cluster: FakeCluster, keeper: LogKeeper) -> None:
    async with keeper.serve() as endpoint, serve_edge(cluster) as server:
        cluster.add(KERNEL, user="somebody else", located=endpoint)
        for what in ("log", "output"):
            status, _ = await read(f"{server.url}api/kernels/{KERNEL}/{what}")
            assert status == 404
    assert keeper.asked == []


@pytest.mark.parametrize(
    ("located", "status", "word"),
    [
        (Dead("killed by signal 9"), 410, b"killed by signal 9"),
        (Waiting("queued"), 503, b"queued"),
        (KeeperEndpoint(KERNEL, "127.0.0.1", 1, None, "x"), 503, b"cannot be reached"),
        (KeeperEndpoint(KERNEL, "192.0.2.1", 1, None, "x"), 503, b"no certificate"),
    ],
)
async def test_where_there_is_no_log(
    cluster: FakeCluster, located: KeeperEndpoint | Dead | Waiting, status: int, word: bytes
) -> None:
    cluster.add(KERNEL, located=located)
    async with serve_edge(cluster) as server:
        found, body = await read(f"{server.url}api/kernels/{KERNEL}/log")
    assert (found, word in body) == (status, True)


async def test_a_keeper_that_refuses_is_503(cluster: FakeCluster, keeper: LogKeeper) -> None:
    keeper.status = 401
    async with keeper.serve() as endpoint, serve_edge(cluster) as server:
        cluster.add(KERNEL, located=endpoint)
        status, _ = await read(f"{server.url}api/kernels/{KERNEL}/log")
    assert status == 503


async def test_what_breaks_off_is_not_taken_for_the_end(
    cluster: FakeCluster, keeper: LogKeeper
) -> None:
    keeper.broken = True
    async with keeper.serve() as endpoint, serve_edge(cluster) as server:
        cluster.add(KERNEL, located=endpoint)
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(10):
                await read(f"{server.url}api/kernels/{KERNEL}/log")


@pytest.mark.parametrize("query", ["from=x", "from=-1", "limit=1e9"])
async def test_numbers_are_numbers(cluster: FakeCluster, query: str) -> None:
    cluster.add(KERNEL)
    async with serve_edge(cluster) as server:
        status, body = await read(f"{server.url}api/kernels/{KERNEL}/log?{query}")
    assert (status, b"must be a number" in body) == (400, True)


async def test_the_output(cluster: FakeCluster) -> None:
    cluster.add(KERNEL)
    async with (
        serve_edge(cluster) as server,
        aiohttp.ClientSession(headers=AUTH) as http,
        http.get(f"{server.url}api/kernels/{KERNEL}/output?lines=2") as answer,
    ):
        body = await answer.json()
    assert (body["id"], body["launcher"], body["state"]) == (KERNEL, "l1", "idle")
    assert body["output"] == {"kernel": "line 0\nline 1"}


async def test_the_output_of_a_launcher_that_is_away(cluster: FakeCluster) -> None:
    cluster.add(KERNEL)
    cluster.fail["output"] = Unavailable("its launcher does not tell")
    async with serve_edge(cluster) as server:
        assert (await read(f"{server.url}api/kernels/{KERNEL}/output"))[0] == 503
