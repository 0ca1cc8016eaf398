"""The tunnel over real sockets: what crosses it, what does not, and how it ends."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from pathlib import Path

import pytest

from holdfast_proxy.cluster import KeeperEndpoint
from holdfast_proxy.edge.arrival import ArrivalClock, boottime
from holdfast_proxy.errors import NotFound, Unavailable
from support.edge_server import EdgeServer, RawClient, serve_edge, until, upgrade
from support.fake_cluster import FakeCluster
from support.fake_keeper import CREDENTIAL, Certificate, Channel, RawKeeper

KERNEL = "11111111-1111-4111-8111-111111111111"


async def joined(
    cluster: FakeCluster, keeper: RawKeeper, server: EdgeServer, **options: object
) -> tuple[RawClient, Channel]:
    """A client and a keeper with a tunnel between them."""
    cluster.add(KERNEL, located=keeper.endpoint)
    client = await upgrade(server, KERNEL, **options)  # type: ignore[arg-type]
    assert client.status == 101
    return client, await keeper.next_channel()


async def until_no_tunnels(server: EdgeServer) -> None:
    await until(lambda: not len(server.edge.tunnels))


async def test_bytes_cross_both_ways_and_the_keeper_is_asked_properly(
    cluster: FakeCluster,
) -> None:
    async with RawKeeper() as keeper, serve_edge(cluster) as server:
        client, channel = await joined(
            cluster,
            keeper,
            server,
            query="?session_id=a%20b&token=leak&other=1",
            headers={
                "Cookie": "secret=1",
                "Sec-WebSocket-Extensions": "permessage-deflate",
                "Sec-WebSocket-Protocol": "x.unknown, v1.kernel.websocket.jupyter.org",
            },
        )
        assert channel.target == "/v1/channels?session_id=a%20b"
        assert channel.headers["authorization"] == f"Bearer {CREDENTIAL}"
        assert channel.headers["holdfast-tunnel"] == "p1.1"
        assert channel.headers["holdfast-user"] == "jovyan"
        assert channel.headers["holdfast-grants"] == "read,execute"
        assert channel.headers["sec-websocket-protocol"] == "v1.kernel.websocket.jupyter.org"
        assert not {"cookie", "sec-websocket-extensions", "origin"} & channel.headers.keys()
        assert client.headers["sec-websocket-protocol"] == "v1.kernel.websocket.jupyter.org"
        assert set(client.headers) == {
            "upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol",
        }  # fmt: skip
        client.writer.write(b"to keeper")
        assert await channel.reader.readexactly(9) == b"to keeper"
        channel.writer.write(b"to client")
        assert await client.read(9) == b"to client"
        client.close()


async def test_what_each_side_says_early_is_kept_in_order(cluster: FakeCluster) -> None:
    async with RawKeeper(tail=b"tail-") as keeper, serve_edge(cluster) as server:
        client, channel = await joined(cluster, keeper, server, early=b"early-")
        client.writer.write(b"later")
        channel.writer.write(b"later")
        assert await channel.reader.readexactly(11) == b"early-later"
        assert await client.read(10) == b"tail-later"
        client.close()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [1 << 20, 64 << 20], ids=["1MB", "64MB"])
async def test_large_transfers_arrive_whole_both_ways(
    cluster: FakeCluster, tmp_path: Path, size: int, secure: bool
) -> None:
    certificate = Certificate.make(tmp_path) if secure else None
    block = os.urandom(1 << 20)

    async def send(writer: asyncio.StreamWriter) -> None:
        for _ in range(size // len(block)):
            writer.write(block)
            await writer.drain()

    async def receive(reader: asyncio.StreamReader) -> str:
        digest, left = hashlib.blake2b(), size
        while left:
            piece = await reader.read(min(left, 1 << 20))
            assert piece
            digest.update(piece)
            left -= len(piece)
        return digest.hexdigest()

    expected = hashlib.blake2b()
    for _ in range(size // len(block)):
        expected.update(block)
    async with RawKeeper(certificate=certificate) as keeper, serve_edge(cluster) as server:
        client, channel = await joined(cluster, keeper, server)
        async with asyncio.timeout(60):
            up, down, _, _ = await asyncio.gather(
                receive(channel.reader),
                receive(client.reader),
                send(client.writer),
                send(channel.writer),
            )
        assert up == down == expected.hexdigest()
        client.close()


async def test_a_slow_reader_holds_its_sender_up_and_no_memory(cluster: FakeCluster) -> None:
    """The keeper's writer must stall while the proxy holds little; then all arrives."""
    block = bytes(1 << 20)
    async with RawKeeper() as keeper, serve_edge(cluster) as server:
        client, channel = await joined(cluster, keeper, server, rcvbuf=65536)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(64):
                channel.writer.write(block)
                await channel.writer.drain()
                sent += len(block)

        sending = asyncio.create_task(send())
        before, stable = -1, 0
        async with asyncio.timeout(20):
            while stable < 10:  # the flow has come to a stand
                stable = stable + 1 if sent == before else 0
                before = sent
                await asyncio.sleep(0.02)
        assert sent < 48 << 20
        (transport,) = [
            protocol.transport
            for protocol in server.site._runner.server.connections  # type: ignore[union-attr]
            if protocol.transport is not None
        ]
        assert 0 < transport.get_write_buffer_size() <= (512 + 256) * 1024
        async with asyncio.timeout(30):
            left = 64 << 20
            while left:
                left -= len(await client.reader.read(1 << 20))
        await sending
        client.close()


async def test_a_pinned_certificate_that_differs_gets_no_byte(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    certificate = Certificate.make(tmp_path / "a")
    other = Certificate.make(tmp_path / "b")
    async with RawKeeper(certificate=certificate) as keeper, serve_edge(cluster) as server:
        real = keeper.endpoint
        wrong = KeeperEndpoint(KERNEL, real.host, real.port, other.fingerprint, CREDENTIAL)
        cluster.add(KERNEL, located=wrong)
        client = await upgrade(server, KERNEL)
        assert client.status == 503
        assert client.headers["retry-after"] == "1"
        assert "not the recorded one" in cluster.unreachable[0][1]
        await cluster.put(KERNEL, real)
        client = await upgrade(server, KERNEL)
        assert client.status == 101
        # The keeper has read one request in all: nothing came before.
        assert [head[:15] for head in keeper.first_bytes if head] == [b"GET /v1/channel"]
        client.close()


async def test_plain_tcp_leaves_the_machine_never(cluster: FakeCluster) -> None:
    cluster.add(KERNEL, located=KeeperEndpoint(KERNEL, "192.0.2.1", 9, None, CREDENTIAL))
    async with serve_edge(cluster) as server:
        assert (await upgrade(server, KERNEL)).status == 503
    assert "not on loopback" in cluster.unreachable[0][1]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_when_the_keeper_breaks_off_the_client_knows_at_once(
    cluster: FakeCluster, tmp_path: Path, secure: bool
) -> None:
    certificate = Certificate.make(tmp_path) if secure else None
    async with RawKeeper(certificate=certificate) as keeper, serve_edge(cluster) as server:
        client, channel = await joined(cluster, keeper, server)
        channel.abort()
        assert await client.read_end() == b""
        client.close()
        await until_no_tunnels(server)


async def test_what_the_keeper_said_last_arrives_before_the_end(cluster: FakeCluster) -> None:
    last = os.urandom(300_000)
    async with RawKeeper() as keeper, serve_edge(cluster) as server:
        client, channel = await joined(cluster, keeper, server)
        client.writer.write(b"x" * 1000)  # unread at the keeper: its close becomes a reset
        channel.writer.write(last)
        channel.writer.write_eof()
        assert await client.read_end() == last
        client.close()
        await until_no_tunnels(server)


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_when_the_client_goes_the_keeper_knows_at_once(
    cluster: FakeCluster, how: str
) -> None:
    async with RawKeeper() as keeper, serve_edge(cluster) as server:
        client, channel = await joined(cluster, keeper, server)
        client.writer.write(b"bye")
        if how == "abort":
            client.close()
        else:
            client.writer.close()
        async with asyncio.timeout(5):
            try:
                assert (await channel.reader.read()) in (b"", b"bye")
            except ConnectionError:
                assert how == "abort"
        channel.writer.close()
        await until_no_tunnels(server)


async def test_ends_leave_aiohttp_in_order(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with RawKeeper() as keeper, serve_edge(cluster) as server:
        for number in range(20):
            client, channel = await joined(cluster, keeper, server)
            first, second = (channel.abort, client.close)[:: 1 if number % 2 else -1]
            first()
            await client.read_end()
            second()
        await until_no_tunnels(server)
        http = server.site._runner.server
        await until(lambda: not (server.edge.in_flight or http.connections))  # type: ignore[union-attr]
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"status": 401}, "refused this proxy"),
        ({"status": 403}, "refused this proxy"),
        ({"status": 503, "extra": "Retry-After: 7\r\n"}, "not ready"),
        ({"status": 404}, "not ready"),
        ({"status": 200}, "not ready"),
    ],
)
async def test_a_keeper_that_refuses_becomes_our_own_503(
    cluster: FakeCluster, options: dict[str, object], words: str
) -> None:
    async with RawKeeper(**options) as keeper, serve_edge(cluster) as server:  # type: ignore[arg-type]
        cluster.add(KERNEL, located=keeper.endpoint)
        client = await upgrade(server, KERNEL)
        assert client.status == 503
        assert client.headers["retry-after"] == ("7" if "extra" in options else "1")
        body = await client.read(int(client.headers["content-length"]))
        assert words in body.decode()
        assert cluster.unreachable == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accept": "bm9wZQ=="}, "Accept"),
        ({"subprotocol": "v1.stream.holdfast"}, "not offered"),
        ({"extra": "Sec-WebSocket-Extensions: permessage-deflate\r\n"}, "extension"),
        ({"extra": "X-Long: " + "x" * 20000 + "\r\n"}, "head above"),
        ({"extra": "no colon here\r\n"}, "malformed"),
    ],
)
async def test_an_answer_against_the_rfc_is_no_tunnel(
    cluster: FakeCluster, options: dict[str, object], words: str
) -> None:
    async with RawKeeper(**options) as keeper, serve_edge(cluster) as server:  # type: ignore[arg-type]
        cluster.add(KERNEL, located=keeper.endpoint)
        client = await upgrade(server, KERNEL)
        assert client.status == 503
        assert words in cluster.unreachable[0][1]


async def test_nobody_at_the_endpoint_is_reported_and_evidence_counts(
    cluster: FakeCluster,
) -> None:
    async with RawKeeper() as keeper:
        gone = keeper.endpoint
    cluster.add(KERNEL, located=gone)
    cluster.fail["after_report"] = NotFound("gone for good", reason="no_such_kernel")
    async with serve_edge(cluster) as server:
        client = await upgrade(server, KERNEL)
        assert client.status == 404
    assert [endpoint for endpoint, _ in cluster.unreachable] == [gone]


async def test_a_keeper_that_moved_is_dialled_at_its_new_place(cluster: FakeCluster) -> None:
    async with RawKeeper() as first:
        gone = first.endpoint
    async with RawKeeper() as keeper, serve_edge(cluster) as server:
        kernel = cluster.add(KERNEL, located=gone)

        async def moved(endpoint: KeeperEndpoint, error: str) -> None:
            kernel.located = keeper.endpoint

        cluster.report_unreachable = moved  # type: ignore[method-assign]
        client = await upgrade(server, KERNEL)
        assert client.status == 101
        client.close()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("no"), 404),
        (Unavailable("etcd is away", retry_after=2.5), 503),
    ],
)
async def test_errors_come_before_the_upgrade(
    cluster: FakeCluster, error: NotFound | Unavailable, status: int
) -> None:
    cluster.add(KERNEL, located=error)
    async with serve_edge(cluster) as server:
        client = await upgrade(server, KERNEL)
        assert client.status == status
        assert client.headers.get("retry-after") == ("3" if status == 503 else None)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upgrade": "h2c"}, 400),
        ({"Sec-WebSocket-Version": "8"}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Authorization": "token wrong"}, 401),
        ({"Authorization": ""}, 401),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
async def test_upgrades_that_are_refused(
    cluster: FakeCluster, headers: dict[str, str], status: int
) -> None:
    async with RawKeeper() as keeper, serve_edge(cluster) as server:
        cluster.add(KERNEL, located=keeper.endpoint)
        client = await upgrade(server, KERNEL, headers=headers)
        assert client.status == status
        assert keeper.connections == 0


async def test_another_users_kernel_is_not_there(cluster: FakeCluster) -> None:
    async with RawKeeper() as keeper, serve_edge(cluster) as server:
        cluster.add(KERNEL, "somebody else", located=keeper.endpoint)
        assert (await upgrade(server, KERNEL)).status == 404
        assert keeper.connections == 0


async def test_a_connection_serves_rest_again_after_a_refused_upgrade(
    cluster: FakeCluster,
) -> None:
    async with serve_edge(cluster) as server:
        client = await upgrade(server, KERNEL)
        assert client.status == 404
        await client.read(int(client.headers["content-length"]))
        client.writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200")
        client.close()


async def test_an_upgrade_that_lay_in_a_frozen_proxy_reaches_no_keeper(
    cluster: FakeCluster,
) -> None:
    offset = 0.0
    clock = ArrivalClock(lambda: boottime() + offset)
    async with RawKeeper() as keeper, serve_edge(cluster, clock=clock) as server:
        cluster.add(KERNEL, located=keeper.endpoint)
        offset = 30.0
        client = await upgrade(server, KERNEL)
        assert (client.status, client.headers["retry-after"]) == (503, "0")
        assert keeper.connections == 0
