"""The standin's own connection to a keeper: its deadline, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from holdfast_proxy.cluster import KeeperEndpoint
from holdfast_proxy.edge.tunnel.dial import KeeperUnreachable
from holdfast_proxy.edge.websocket import relay
from holdfast_proxy.edge.websocket.relay import Upstream
from support.edge_server import until
from support.fake_keeper import WebsocketKeeper


@asynccontextmanager
async def silent_keeper() -> AsyncIterator[tuple[KeeperEndpoint, asyncio.Event, asyncio.Event]]:
    """Takes a connection and says nothing, as a stopped process; events: taken, ended."""
    taken, ended = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.set()
        while await reader.read(65536):
            pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield KeeperEndpoint("k", "127.0.0.1", port, None, "secret"), taken, ended


async def test_a_keeper_that_does_not_answer_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "ANSWER_SECONDS", -1.9)  # of two seconds to connect
    async with silent_keeper() as (endpoint, _, ended):
        upstream = Upstream(endpoint)
        with pytest.raises(KeeperUnreachable):
            await asyncio.wait_for(
                upstream.open(subprotocol=None, session_id="s", headers={}), timeout=5
            )
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_client_that_leaves_meanwhile_leaves_no_connection() -> None:
    async with silent_keeper() as (endpoint, taken, ended):
        upstream = Upstream(endpoint)
        opening = asyncio.create_task(upstream.open(subprotocol=None, session_id="s", headers={}))
        await asyncio.wait_for(taken.wait(), 5)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        assert upstream._session is not None
        assert upstream._session.closed
        await asyncio.wait_for(ended.wait(), 5)
        del upstream
        gc.collect()


async def test_a_dead_peer_is_noticed_on_an_idle_connection() -> None:
    async with WebsocketKeeper() as keeper:
        upstream = Upstream(keeper.endpoint)
        opened = await upstream.open(
            subprotocol=None, session_id="s", headers={"Holdfast-Tunnel": "t.1"}
        )
        try:
            await until(lambda: keeper.sockets)
            sock = opened.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 30
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0
        finally:
            await upstream.close()
