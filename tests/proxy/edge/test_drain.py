"""SIGTERM: everybody is told at once, nothing is lost, and the exit is quick."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import WSMsgType

from holdfast_protocol.frames import STREAM_SUBPROTOCOL
from holdfast_protocol.jupyter import Message, decode_legacy, encode_legacy
from holdfast_proxy.edge.drain import drain
from support.edge_server import AUTH, EdgeServer, serve_edge, until, upgrade
from support.fake_cluster import FakeCluster
from support.fake_keeper import RawKeeper, WebsocketKeeper

KERNEL = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


@contextlib.asynccontextmanager
async def connected(
    server: EdgeServer, kernel_id: str, protocol: str | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            server.channels_url(kernel_id) + "?session_id=s",
            headers=AUTH,
            protocols=() if protocol is None else (protocol,),
        ) as socket,
    ):
        yield socket


async def test_keepers_say_goodbye_for_our_tunnels_and_clients_come_back(
    cluster: FakeCluster,
) -> None:
    async with (
        WebsocketKeeper(kernel_id=KERNEL) as one,
        WebsocketKeeper(kernel_id=OTHER) as two,
        serve_edge(cluster) as server,
    ):
        cluster.add(KERNEL, located=one.endpoint)
        cluster.add(OTHER, located=two.endpoint)
        async with (
            connected(server, KERNEL) as a,
            connected(server, KERNEL) as b,
            connected(server, OTHER) as c,
        ):
            for socket in (a, b, c):
                await socket.send_str("hello")
                assert (await socket.receive(timeout=10)).data == "hello"
            draining = asyncio.create_task(drain(server.edge))
            for socket in (a, b, c):
                message = await socket.receive(timeout=10)
                assert (message.type, message.data) == (WSMsgType.CLOSE, 1012)
            await draining
        assert [sorted(body["tunnels"]) for body in one.drains] == [["p1.1", "p1.2"]]
        assert two.drains == [{"tunnels": ["p1.3"]}]
        assert cluster.drained
        assert len(server.edge.tunnels) == 0


async def test_a_drain_does_not_wait_for_the_deaf(cluster: FakeCluster) -> None:
    """A keeper that does not answer and an etcd that does not answer cost a second together."""
    cluster.fail["drain"] = RuntimeError("hangs")
    async with (
        WebsocketKeeper(deaf_to_drain=True) as keeper,
        WebsocketKeeper(kernel_id=OTHER) as well,
        RawKeeper() as gone,
        serve_edge(cluster) as server,
    ):
        cluster.add(KERNEL, located=keeper.endpoint)
        cluster.add(OTHER, located=well.endpoint)
        async with connected(server, KERNEL) as deaf, connected(server, OTHER) as heard:
            entry = server.edge.tunnels.open(gone.endpoint)
            await gone.__aexit__(None, None, None)
            started = asyncio.get_running_loop().time()
            draining = asyncio.create_task(drain(server.edge))
            assert (await heard.receive(timeout=10)).data == 1012
            heard_after = asyncio.get_running_loop().time() - started
            await deaf.receive(timeout=10)
            assert deaf.close_code != 1000
            await draining
            whole = asyncio.get_running_loop().time() - started
        server.edge.tunnels.close(entry)
    assert heard_after < whole
    assert whole < 3  # the deadlines add up to less than 1 s; the rest is a busy machine


async def test_requests_in_drain_are_sent_elsewhere(cluster: FakeCluster) -> None:
    async with serve_edge(cluster) as server, aiohttp.ClientSession() as session:
        url = server.url + "api/kernels"
        cluster.hold_starts = asyncio.Event()
        async with session.get(url, headers=AUTH) as answer:
            assert answer.status == 200
        start = asyncio.create_task(session.post(url, json={}, headers=AUTH))
        await until(lambda: cluster.starts)
        await drain(server.edge)
        async with await start as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "0"
        async with session.get(server.url + "readyz") as answer:
            assert (answer.status, (await answer.json())["message"]) == (503, "draining")
        async with session.get(url, headers=AUTH) as answer:
            assert answer.status == 503
        assert (await upgrade(server, KERNEL)).status == 503


async def test_a_tunnel_that_is_being_made_meanwhile_is_not_forgotten(
    cluster: FakeCluster,
) -> None:
    """Its keeper was asked to drain it before it knew it: the proxy gives it up itself."""
    async with RawKeeper(mute=True) as keeper, serve_edge(cluster) as server:
        cluster.add(KERNEL, located=keeper.endpoint)
        client = asyncio.create_task(upgrade(server, KERNEL))
        await until(lambda: keeper.first_bytes)
        await drain(server.edge)
        assert (await client).status == 503
        assert len(server.edge.tunnels) == 0


@pytest.mark.parametrize("protocol", [None, STREAM_SUBPROTOCOL])
async def test_who_waits_for_a_kernel_is_told_to_come_back(
    cluster: FakeCluster, protocol: str | None
) -> None:
    cluster.add(KERNEL)
    async with serve_edge(cluster) as server, connected(server, KERNEL, protocol) as socket:
        header = {"msg_id": "m1", "msg_type": "execute_request", "session": "s"}
        if protocol is None:
            cell = Message.from_dicts(channel="shell", header=header)
            await socket.send_str(str(encode_legacy(cell)))
            await socket.receive(timeout=10)
        await until(lambda: server.edge.standins)
        draining = asyncio.create_task(drain(server.edge))
        if protocol is None:  # its cell was given to nobody: that must be said
            types = [decode_legacy((await socket.receive(timeout=10)).data) for _ in range(3)]
            assert [m.msg_type for m in types] == ["error", "execute_reply", "status"]
        assert (await socket.receive(timeout=10)).data == 1012
        await draining
