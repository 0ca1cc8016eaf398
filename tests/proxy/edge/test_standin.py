"""What clients see while no keeper can speak, and when one appears."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from holdfast_protocol.frames import STREAM_SUBPROTOCOL, Bye, ByeReason, Resume, decode
from holdfast_protocol.jupyter import (
    V1_SUBPROTOCOL,
    Message,
    decode_legacy,
    decode_v1,
    encode_legacy,
    encode_v1,
)
from holdfast_proxy.cluster import Dead, KeeperEndpoint, Waiting
from holdfast_proxy.config import ProxyConfig, Secret
from holdfast_proxy.edge.arrival import ArrivalClock, boottime
from holdfast_proxy.edge.websocket import standin
from holdfast_proxy.errors import Unavailable
from support.edge_server import AUTH, TOKEN, EdgeServer, serve_edge, until
from support.fake_cluster import FakeCluster
from support.fake_keeper import CREDENTIAL, Certificate, WebsocketKeeper

KERNEL = "11111111-1111-4111-8111-111111111111"
PLAIN = pytest.mark.parametrize("protocol", [V1_SUBPROTOCOL, None], ids=["v1", "legacy"])


def request(msg_type: str, msg_id: str, text: str = "") -> Message:
    header = {"msg_id": msg_id, "msg_type": msg_type, "session": "s1", "username": "u"}
    return Message.from_dicts(channel="shell", header=header, content={"code": text})


class Client:
    """A plain client in one of the two framings."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.v1 = socket.protocol == V1_SUBPROTOCOL

    def encode(self, message: Message) -> str | bytes:
        return encode_v1(message) if self.v1 else encode_legacy(message)

    async def send(self, message: Message) -> str | bytes:
        data = self.encode(message)
        await (
            self.socket.send_str(data) if isinstance(data, str) else self.socket.send_bytes(data)
        )
        return data

    async def receive(self) -> Message:
        answer = await self.socket.receive(timeout=10)
        assert answer.type in (WSMsgType.TEXT, WSMsgType.BINARY), answer
        return decode_v1(answer.data) if self.v1 else decode_legacy(answer.data)

    async def receive_close(self) -> int | None:
        answer = await self.socket.receive(timeout=10)
        assert answer.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING), answer
        return self.socket.close_code


def connect(
    session: aiohttp.ClientSession, server: EdgeServer, protocol: str | None, **options: Any
) -> Any:
    return session.ws_connect(
        server.channels_url(KERNEL) + "?session_id=s1",
        headers=AUTH,
        protocols=() if protocol is None else (protocol,),
        **options,
    )


@PLAIN
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_plain_client_waits_is_told_why_and_loses_nothing(
    cluster: FakeCluster, tmp_path: Path, protocol: str | None, secure: bool
) -> None:
    kernel = cluster.add(KERNEL, located=Waiting("queued in Slurm"))
    certificate = Certificate.make(tmp_path) if secure else None
    async with (
        WebsocketKeeper(certificate=certificate) as keeper,
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, protocol) as socket,
    ):
        client = Client(socket)
        sent = [
            await client.send(request("kernel_info_request", "m0")),
            await client.send(request("execute_request", "m1", "1+1")),
        ]
        note = await client.receive()
        assert (note.channel, note.msg_type, note.parent_id) == ("iopub", "stream", "m1")
        assert "queued in Slurm" in note.content_dict()["text"]
        await cluster.put(KERNEL, Waiting("node is booting"))
        note = await client.receive()
        assert (note.parent_id, "booting" in note.content_dict()["text"]) == ("m1", True)
        assert keeper.received == []
        await cluster.put(KERNEL, keeper.endpoint)
        # The fake keeper echoes what it gets: first what was held, in order, then what follows.
        assert (await client.receive()).msg_id == "m0"
        assert (await client.receive()).msg_id == "m1"
        for number in range(2, 50):
            sent += [await client.send(request("execute_request", f"m{number}"))]
        for number in range(2, 50):
            assert (await client.receive()).msg_id == f"m{number}"
        assert keeper.received == sent
        assert keeper.sessions == ["s1"]
        (upgrade,) = keeper.upgrades
        assert upgrade["Authorization"] == f"Bearer {CREDENTIAL}"
        assert (upgrade["Holdfast-User"], upgrade["Holdfast-Grants"]) == ("jovyan", "read,execute")
        assert len(server.edge.tunnels) == 1
        # A keeper's pings reach the client and its pongs the keeper, in order with the data.
        (upstream,) = keeper.sockets.values()
        await upstream.ping(b"nonce")
        await upstream.close(code=4410, message=b"over")
        assert await client.receive_close() == 4410
    assert kernel.located == keeper.endpoint
    assert len(server.edge.tunnels) == 0


async def test_a_relay_forwards_pings_and_pongs_in_order(cluster: FakeCluster) -> None:
    cluster.add(KERNEL)
    async with (
        WebsocketKeeper() as keeper,
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, None, autoping=False) as socket,
    ):
        await socket.ping(b"while waiting")
        answer = await socket.receive(timeout=10)
        assert (answer.type, answer.data) == (WSMsgType.PONG, b"while waiting")
        await cluster.put(KERNEL, keeper.endpoint)
        await until(lambda: keeper.sockets)
        (upstream,) = keeper.sockets.values()
        await upstream.send_str("before")
        await upstream.ping(b"proof")
        await upstream.send_str("after")
        found = []
        while len(found) < 3:
            message = await socket.receive(timeout=10)
            found.append((message.type, message.data))
        assert found == [
            (WSMsgType.TEXT, "before"),
            (WSMsgType.PING, b"proof"),
            (WSMsgType.TEXT, "after"),
        ]


async def test_a_stream_client_is_sent_to_the_keeper(cluster: FakeCluster) -> None:
    """RESUME is not answered; 1012 brings the shim back, and then it gets a tunnel."""
    cluster.add(KERNEL)
    async with (
        WebsocketKeeper() as keeper,
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
    ):
        resume = Resume(client_id=bytes(16), attempt=1).encode()
        async with connect(session, server, STREAM_SUBPROTOCOL) as socket:
            assert socket.protocol == STREAM_SUBPROTOCOL
            await socket.send_bytes(resume)
            await until(lambda: server.edge.standins)
            await cluster.put(KERNEL, keeper.endpoint)
            answer = await socket.receive(timeout=10)
            assert (answer.type, socket.close_code) == (WSMsgType.CLOSE, 1012)
            assert keeper.received == []
        async with connect(session, server, STREAM_SUBPROTOCOL) as socket:
            await socket.send_bytes(resume)
            assert (await socket.receive(timeout=10)).data == resume


@PLAIN
async def test_a_dead_kernel_is_said_with_its_reason(
    cluster: FakeCluster, protocol: str | None
) -> None:
    cluster.add(KERNEL, located=Dead("out of memory"))
    async with (
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, protocol) as socket,
    ):
        client = Client(socket)
        text = await client.receive()
        assert (text.msg_type, text.content_dict()["name"]) == ("stream", "stderr")
        assert "out of memory" in text.content_dict()["text"]
        status = await client.receive()
        assert (status.msg_type, status.channel) == ("status", "iopub")
        assert status.content_dict() == {"execution_state": "dead"}
        assert await client.receive_close() == 1011


async def test_a_dead_kernel_is_gone_to_a_stream(cluster: FakeCluster) -> None:
    cluster.add(KERNEL, located=Dead("out of memory"))
    async with (
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, STREAM_SUBPROTOCOL) as socket,
    ):
        frame = decode((await socket.receive(timeout=10)).data)
        assert frame == Bye(ByeReason.GONE, come_back=False, detail="out of memory")
        await socket.receive(timeout=10)
        assert socket.close_code == 4410


@PLAIN
async def test_cells_that_wait_for_a_kernel_that_dies_end_with_an_error(
    cluster: FakeCluster, protocol: str | None
) -> None:
    cluster.add(KERNEL, located=Waiting("starting"))
    async with (
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, protocol) as socket,
    ):
        client = Client(socket)
        await client.send(request("execute_request", "m1"))
        await client.receive()
        del cluster.kernels[KERNEL]
        types = []
        while not types or types[-1] != ("status", ""):
            message = await client.receive()
            types.append((message.msg_type, message.parent_id))
        assert types == [
            ("stream", "m1"),
            ("error", "m1"),
            ("execute_reply", "m1"),
            ("status", "m1"),
            ("status", ""),
        ]
        assert await client.receive_close() == 1011


async def test_an_unreachable_cluster_is_a_reason_to_wait(cluster: FakeCluster) -> None:
    cluster.add(KERNEL, located=Waiting("starting"))
    async with (
        WebsocketKeeper() as keeper,
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, None) as socket,
    ):
        client = Client(socket)
        await client.send(request("execute_request", "m1"))
        await client.receive()
        cluster.kernels[KERNEL].located = Unavailable("etcd does not answer")
        assert "etcd does not answer" in (await client.receive()).content_dict()["text"]
        await cluster.put(KERNEL, keeper.endpoint)
        assert (await client.receive()).msg_id == "m1"


async def test_a_keeper_that_cannot_be_dialled_is_waited_for(cluster: FakeCluster) -> None:
    cluster.add(KERNEL)
    async with WebsocketKeeper() as gone:
        wrong = gone.endpoint
    async with (
        WebsocketKeeper() as keeper,
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, None) as socket,
    ):
        client = Client(socket)
        await client.send(request("execute_request", "m1"))
        await client.receive()
        await cluster.put(KERNEL, wrong)
        assert "cannot be reached" in (await client.receive()).content_dict()["text"]
        assert [endpoint for endpoint, _ in cluster.unreachable] == [wrong]
        await cluster.put(KERNEL, keeper.endpoint)
        assert (await client.receive()).msg_id == "m1"


async def test_a_credential_is_never_told_to_another_certificate(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    certificate, other = Certificate.make(tmp_path / "a"), Certificate.make(tmp_path / "b")
    cluster.add(KERNEL)
    async with (
        WebsocketKeeper(certificate=certificate) as keeper,
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, None) as socket,
    ):
        real = keeper.endpoint
        wrong = KeeperEndpoint(KERNEL, real.host, real.port, other.fingerprint, CREDENTIAL)
        await until(lambda: server.edge.standins)
        await cluster.put(KERNEL, wrong)
        await until(lambda: cluster.unreachable)
        assert keeper.upgrades == []
        await socket.close()


async def test_what_is_held_is_bounded(cluster: FakeCluster) -> None:
    cluster.add(KERNEL)
    config = ProxyConfig(token=Secret(TOKEN), standin_bytes=65536)
    async with (
        serve_edge(cluster, config=config) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, None) as socket,
    ):
        client = Client(socket)
        await client.send(request("execute_request", "m1", "x" * 60000))
        await client.receive()
        await client.send(request("execute_request", "m2", "x" * 60000))
        ended = [await client.receive() for _ in range(6)]
        assert [message.msg_type for message in ended] == ["error", "execute_reply", "status"] * 2
        assert [message.parent_id for message in ended] == ["m1"] * 3 + ["m2"] * 3
        assert await client.receive_close() == 1013


async def test_a_relay_whose_keeper_breaks_off_makes_the_client_come_back(
    cluster: FakeCluster,
) -> None:
    cluster.add(KERNEL)
    async with (
        WebsocketKeeper() as keeper,
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, None) as socket,
    ):
        await cluster.put(KERNEL, keeper.endpoint)
        await until(lambda: keeper.sockets)
        keeper.abort_all()
        assert await Client(socket).receive_close() == 1012
        await until(lambda: not server.edge.in_flight)
        assert len(server.edge.tunnels) == 0


async def test_cells_that_a_keeper_did_not_take_end_with_an_error(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection to the keeper breaks while it is given what was held."""

    async def broken(message: object, to: object) -> bool:
        raise ConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr(standin, "forward", broken)
    cluster.add(KERNEL)
    async with (
        WebsocketKeeper() as keeper,
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, None) as socket,
    ):
        client = Client(socket)
        await client.send(request("execute_request", "m1"))
        await client.receive()
        await cluster.put(KERNEL, keeper.endpoint)
        ended = [await client.receive() for _ in range(3)]
        assert [message.msg_type for message in ended] == ["error", "execute_reply", "status"]
        assert {message.parent_id for message in ended} == {"m1"}
        assert await client.receive_close() == 1012


@pytest.mark.parametrize("there", [True, False])
async def test_after_a_freeze_the_client_must_prove_that_it_is_there(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """It may have come back by another proxy, whose connection must not be taken over."""
    monkeypatch.setattr(standin, "PROOF_SECONDS", 10.0 if there else 0.05)
    offset = 0.0
    clock = ArrivalClock(lambda: boottime() + offset)
    cluster.add(KERNEL)
    async with (
        WebsocketKeeper() as keeper,
        serve_edge(cluster, clock=clock) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, None, autoping=there) as socket,
    ):
        client = Client(socket)
        await client.send(request("execute_request", "m1"))
        await client.receive()
        offset = 30.0
        await cluster.put(KERNEL, keeper.endpoint)
        if there:
            assert (await client.receive()).msg_id == "m1"
            return
        assert (await socket.receive(timeout=10)).type is WSMsgType.PING
        assert [(await client.receive()).msg_type for _ in range(3)][1] == "execute_reply"
        assert await client.receive_close() == 1012
        assert keeper.upgrades == []


async def test_a_client_that_leaves_leaves_nothing_behind(cluster: FakeCluster) -> None:
    cluster.add(KERNEL)
    async with serve_edge(cluster) as server, aiohttp.ClientSession() as session:
        async with connect(session, server, None) as socket:
            await socket.send_str("not a message at all")
            await until(lambda: server.edge.standins)
        await until(lambda: not server.edge.standins and not server.edge.in_flight)
    assert [t for t in asyncio.all_tasks() if "Standin" in repr(t)] == []


async def test_what_is_no_message_is_the_keepers_to_refuse(cluster: FakeCluster) -> None:
    cluster.add(KERNEL)
    async with (
        WebsocketKeeper() as keeper,
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        connect(session, server, V1_SUBPROTOCOL) as socket,
    ):
        odd: list[str | bytes] = ["text", b"\0", b"", json.dumps({"header": 1})]
        for data in odd:
            await (socket.send_str(data) if isinstance(data, str) else socket.send_bytes(data))
        await cluster.put(KERNEL, keeper.endpoint)
        await until(lambda: len(keeper.received) == len(odd))
        assert keeper.received == odd
