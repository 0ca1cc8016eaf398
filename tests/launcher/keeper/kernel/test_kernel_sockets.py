"""Channels of one session: order, bounds, independence; and iopub under pressure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from holdfast_launcher.keeper.kernel.connection import Connection
from holdfast_launcher.keeper.kernel.iopub import IopubDrain
from holdfast_launcher.keeper.kernel.sockets import SessionSockets
from holdfast_launcher.keeper.kernel.wire import Wire, WireEvents
from holdfast_protocol.errors import InvalidState, SendBufferFull
from holdfast_protocol.jupyter import Message


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    made = zmq.Context()
    try:
        yield made
    finally:
        made.destroy(linger=0)


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    ports = {name: i for i, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)}
    return Connection("ipc", str(tmp_path / "s"), ports, "hmac-sha256", b"")


def bind(context, kind, url, **options):
    socket = context.socket(kind)
    for name, value in options.items():
        setattr(socket, name, value)
    socket.bind(url)
    return socket


async def eventually(condition):
    """Wait until a condition on another thread's or process's doing holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - ZMQ's own threads set no asyncio events
            await asyncio.sleep(0)


async def receive(socket, count):
    """``count`` messages from a socket of the kernel's end."""
    got = []
    async with asyncio.timeout(10):
        while len(got) < count:
            if socket.poll(0):
                got.append(socket.recv_multipart())
            else:
                await asyncio.sleep(0.001)
    return got


def fill(sockets, body):
    """Send numbered messages on shell until it is full; how many were taken."""
    for number in range(10_000):
        try:
            sockets.send("shell", [str(number).encode(), body])
        except SendBufferFull:
            return number
    return 10_000


async def test_a_full_shell_holds_up_neither_control_nor_stdin(context, connection):
    routers = {
        name: bind(context, zmq.ROUTER, connection.url(name), rcvhwm=1)
        for name in ("shell", "control", "stdin")
    }
    sockets = SessionSockets(context, connection, lambda *_: None, bound=1_000_000)
    sent = fill(sockets, b"x" * 10_000)
    assert 64 <= sent < 10_000
    sockets.send("control", [b"control"])
    sockets.send("stdin", [b"stdin"])
    assert [m[1:] for m in await receive(routers["control"], 1)] == [[b"control"]]
    assert [m[1:] for m in await receive(routers["stdin"], 1)] == [[b"stdin"]]
    got = await receive(routers["shell"], sent)  # what was taken arrives, in order
    assert [int(m[1]) for m in got] == list(range(sent))
    sockets.send("shell", [b"again"])
    assert (await receive(routers["shell"], 1))[0][1] == b"again"
    sockets.close()
    sockets.close()


async def test_shell_waits_for_stdin_and_they_share_an_identity(context, connection):
    sockets = SessionSockets(context, connection, lambda *_: None, bound=1000)
    shell = bind(context, zmq.ROUTER, connection.url("shell"))
    bind(context, zmq.ROUTER, connection.url("control"))
    sockets.send("shell", [b"cell"])
    sockets.send("control", [b"c"])
    await asyncio.sleep(0.2)
    assert not shell.poll(0)
    stdin = bind(context, zmq.ROUTER, connection.url("stdin"), router_mandatory=1)
    ((identity, body),) = await receive(shell, 1)
    assert body == b"cell"
    stdin.send_multipart([identity, b"question"])  # raises when it is not connected
    sockets.close()


async def test_one_message_above_the_bound_is_taken(context, connection):
    sockets = SessionSockets(context, connection, lambda *_: None, bound=10)
    sockets.send("shell", [b"x" * 1000])
    assert fill(sockets, b"y") < 200
    sockets.close()


async def test_answers_of_a_blocked_loop_are_all_there(context, connection):
    """Edge-triggered descriptors: nothing may be forgotten when much comes at once."""
    got: list[bytes] = []
    routers = {
        name: bind(context, zmq.ROUTER, connection.url(name), sndhwm=0)
        for name in ("shell", "control", "stdin")
    }
    sockets = SessionSockets(context, connection, lambda c, raw: got.append(raw[0]), bound=1000)
    sockets.send("shell", [b"hello"])
    ((identity, _),) = await receive(routers["shell"], 1)
    for number in range(3000):
        routers["shell"].send_multipart([identity, str(number).encode()])
    sockets.send("shell", [b"more"])  # our own send must not eat the wake-up
    await eventually(lambda: len(got) >= 3000)
    assert [int(g) for g in got] == list(range(3000))
    sockets.close()


async def subscribed(publisher, drain_made):
    """A drain, and its subscription seen by the XPUB."""
    drain = drain_made()
    await eventually(lambda: publisher.poll(0))
    assert publisher.recv() == b"\x01"
    return drain


async def test_a_receiver_that_raises_stops_nothing(context, connection):
    publisher = bind(context, zmq.XPUB, connection.url("iopub"))
    routers = {n: bind(context, zmq.ROUTER, connection.url(n)) for n in ("shell", "stdin")}
    bind(context, zmq.ROUTER, connection.url("control"))
    got: list[bytes] = []

    def receive_one(raw: list[bytes]) -> None:
        got.append(raw[0])
        if raw[0] == b"0":
            raise ValueError("a listener's bug")

    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    drain = await subscribed(
        publisher,
        lambda: IopubDrain(context, connection, receive_one, lambda: None, bound=10**6),
    )
    sockets = SessionSockets(context, connection, lambda _, raw: receive_one(raw), bound=1000)
    sockets.send("shell", [b"hello"])
    ((identity, _),) = await receive(routers["shell"], 1)
    for number in range(10):
        publisher.send(str(number).encode())
    await eventually(lambda: len(got) == 10)
    for number in range(10):
        routers["shell"].send_multipart([identity, str(number).encode()])
    await eventually(lambda: len(got) == 20)
    assert [int(g) for g in got] == [*range(10), *range(10)]
    assert len(complaints) == 2
    assert drain.waiting_bytes == 0
    drain.close()
    sockets.close()


async def test_iopub_is_bounded_in_bytes_and_loses_nothing(context, connection):
    publisher = bind(context, zmq.XPUB, connection.url("iopub"), sndhwm=0)
    got: list[bytes] = []
    bound, size, count = 1_000_000, 10_000, 2000
    drain = await subscribed(
        publisher,
        lambda: IopubDrain(
            context, connection, lambda raw: got.append(raw[0]), lambda: None, bound=bound
        ),
    )
    for number in range(count):  # 20 MB, while the loop does not take any
        publisher.send(str(number).encode().ljust(size))
    while not drain.throttled:
        assert drain.waiting_bytes < bound + 4 * 1024 * 1024 + size
    assert not got
    await eventually(lambda: len(got) >= count)
    assert [int(g) for g in got] == list(range(count))
    publisher.send(b"after")  # a throttled socket goes on
    await eventually(lambda: got[-1] == b"after")
    drain.close()
    drain.close()


async def test_a_throttled_iopub_pushes_back_to_the_kernel(context, connection):
    """Once throttled, what the keeper holds beyond its bound is a few messages and buffers."""
    publisher = bind(context, zmq.XPUB, connection.url("iopub"), sndhwm=10, xpub_nodrop=1)
    got: list[bytes] = []
    bound, size = 1_000_000, 50_000
    drain = await subscribed(
        publisher,
        lambda: IopubDrain(context, connection, got.append, lambda: None, bound=bound),
    )

    def publish_until_refused():
        sent, deadline = 0, time.monotonic() + 0.3
        while time.monotonic() < deadline:  # the loop is blocked: nobody takes
            try:
                publisher.send(b"x" * size, zmq.NOBLOCK)
                sent, deadline = sent + 1, time.monotonic() + 0.3
            except zmq.Again:
                continue
        return sent

    total = 0
    for _ in range(4):
        sent = publish_until_refused()
        total += sent
        assert sent * size < bound + 4 * 1024 * 1024 + 300 * size
        await eventually(lambda: len(got) == total)  # noqa: B023 - awaited here
    assert drain.throttled
    drain.close()


async def test_iopub_wakes_the_loop_per_batch(context, connection, monkeypatch):
    publisher = bind(context, zmq.XPUB, connection.url("iopub"), sndhwm=0)
    got: list[bytes] = []
    drain = await subscribed(
        publisher,
        lambda: IopubDrain(context, connection, got.append, lambda: None, bound=10**8),
    )
    wakes = []
    plain = drain._call
    monkeypatch.setattr(drain, "_call", lambda callback: (wakes.append(callback), plain(callback)))
    for _ in range(5000):
        publisher.send(b"x")
    await eventually(lambda: len(got) >= 5000)
    assert len(wakes) < 500
    drain.close()


async def test_iopub_sees_the_end_of_the_stream_after_its_last_message(context, connection):
    kernel = zmq.Context()
    publisher = bind(kernel, zmq.XPUB, connection.url("iopub"), sndhwm=0)
    got: list[bytes] = []
    drain = await subscribed(
        publisher,
        lambda: IopubDrain(
            context, connection, lambda raw: got.append(raw[0]), lambda: None, bound=10**8
        ),
    )
    for number in range(5000):
        publisher.send(str(number).encode())
    publisher.close(linger=5000)
    kernel.term()
    await drain.disconnected.wait()
    await eventually(lambda: drain.idle)
    assert [int(g) for g in got] == list(range(5000))
    drain.close()


async def test_a_wire_that_is_being_ended_swallows_what_clients_send(context, connection):
    """Its sockets close before the incarnation's end is told: no connection may die of that."""
    nothing = WireEvents(
        published=lambda v1, message: None,
        answered=lambda session, v1, message: None,
        own_answer=lambda message: None,
        connected=lambda: None,
    )
    wire = Wire(context, connection, nothing)
    try:
        message = Message.from_dicts(channel="shell", header={"msg_id": "1"})
        with pytest.raises(InvalidState):
            wire.send("never opened", message)
        wire.open("s")
        wire.stop_accepting()
        wire.send("opened while it ends", message)
    finally:
        wire.close()
    wire.send("s", message)
