"""New connections are taken a few at a time, and none is lost for it."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from holdfast_proxy.accepting import AT_ONCE, Acceptor
from holdfast_proxy.descriptors import ENOUGH, DescriptorLimit, wanted_limit


class Greeter(asyncio.Protocol):
    """Says a word to who connects."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


class Scarce(socket.socket):
    """A listening socket of a process that has used up its descriptors."""

    refusals = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@asynccontextmanager
async def accepting(listening: socket.socket) -> AsyncIterator[tuple[Acceptor, int]]:
    listening.bind(("127.0.0.1", 0))
    listening.setblocking(False)
    acceptor = Acceptor(listening, Greeter)
    acceptor.start()
    try:
        yield acceptor, listening.getsockname()[1]
    finally:
        acceptor.stop()


async def greeting(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_a_crowd_is_served_whole_and_the_loop_turns_meanwhile() -> None:
    """Connections of a kernel's full queue are spread over turns of the loop."""
    crowd = AT_ONCE * 5
    async with accepting(socket.socket()) as (acceptor, port):
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(crowd)]
        sizes = []
        for _ in range(100):
            await asyncio.sleep(0)
            sizes.append(len(acceptor._making))
        steps = [later - sooner for sooner, later in pairwise([0, *sizes])]
        assert 0 < max(steps) <= AT_ONCE
        for connection in waiting:
            connection.setblocking(False)
            async with asyncio.timeout(30):
                assert await asyncio.get_running_loop().sock_recv(connection, 16) == b"hello"
            connection.close()


async def test_a_process_without_room_pauses_and_goes_on() -> None:
    listening = Scarce()
    listening.refusals = 2
    async with accepting(listening) as (acceptor, port):
        async with asyncio.timeout(30):
            assert await greeting(port) == b"hello"
        assert listening.refusals == 0
        assert "open" in repr(acceptor)


async def test_after_the_end_nobody_is_let_in() -> None:
    async with accepting(socket.socket()) as (acceptor, port):
        acceptor.stop()
        acceptor.stop()
        assert "stopped" in repr(acceptor)
        try:
            await greeting(port)
        except ConnectionRefusedError:
            return
        raise AssertionError("it was let in")


def test_the_limit_goes_up_to_what_the_administrator_allows_and_is_enough() -> None:
    endless = resource.RLIM_INFINITY
    assert wanted_limit(1024, 20_000) == 20_000
    assert wanted_limit(1024, 524_288) == ENOUGH
    assert wanted_limit(1024, endless) == ENOUGH
    assert wanted_limit(100_000, endless) == 100_000, "never lower than it is"
    assert wanted_limit(1024, 1024) == 1024
    assert wanted_limit(endless, endless) == endless
    assert DescriptorLimit(1024, 20_000).tunnels == 9_936
