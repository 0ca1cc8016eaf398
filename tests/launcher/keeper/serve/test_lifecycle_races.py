"""Lifecycle calls that wait while the kernel they were meant for ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast_launcher.keeper.fence import Fence
from holdfast_launcher.keeper.log.journal import Journal
from holdfast_launcher.keeper.serve.gate import Gate
from holdfast_launcher.keeper.serve.hub import Hub
from holdfast_launcher.keeper.serve.lifecycle import After, Lifecycle
from holdfast_launcher.keeper.serve.notices import Notices
from holdfast_launcher.keeper.serve.sessions import Sessions
from holdfast_protocol.errors import InvalidState
from holdfast_protocol.fencing import Token
from support.fake_kernel import FakeKernelHost
from support.keeper_clients import execute


class Bench:
    def __init__(self, directory: Path) -> None:
        self.hub = Hub(
            epoch=bytes(15) + b"\1",
            journal=Journal(directory, memory_bytes=1 << 20, disk_bytes=1 << 20),
            sessions=Sessions(asyncio.get_running_loop().time),
            gate=Gate(1 << 20),
            writer=Notices(new_id=lambda: "n", now=lambda: "2026-01-01T00:00:00Z"),
            on_change=lambda: self.lifecycle.moved(),
            on_state=lambda: self.lifecycle.moved(),
        )
        self.host = FakeKernelHost(None, self.hub)
        self.hub.bind(self.host)
        self.lifecycle = Lifecycle(
            hub=self.hub, host=self.host, fence=Fence(directory), nonce="nonce"
        )
        self.session = self.hub.session("s", durable=True)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.lifecycle.start(Token(0, 0), "nonce")
    yield made
    made.hub.journal.close()


async def test_an_interrupt_that_waited_over_a_restart_stops_nothing_new(bench: Bench) -> None:
    stream = bench.hub.stream_of(bench.session)
    interrupt = asyncio.create_task(bench.lifecycle.interrupt([After("s", 1)]))
    await asyncio.sleep(0)  # it waits for a message that has not come
    await bench.lifecycle.restart(Token(0, 0), [])
    stream.accepted = 1
    bench.hub.accept(bench.session, execute("hang"), 10)  # the new incarnation's first cell
    bench.lifecycle.moved()
    await interrupt
    assert bench.host.interrupts == 0
    await bench.lifecycle.interrupt([After("s", 1)])
    assert bench.host.interrupts == 1


async def test_an_interrupt_that_meets_the_end_of_its_kernel_is_over(bench: Bench) -> None:
    """Told to ask again, its caller would stop what runs after the restart."""
    stream = bench.hub.stream_of(bench.session)
    interrupt = asyncio.create_task(bench.lifecycle.interrupt([After("s", 1)]))
    await asyncio.sleep(0)
    bench.host._end("restarting", "it crashed")
    stream.accepted = 1
    bench.lifecycle.moved()
    await interrupt
    with pytest.raises(InvalidState):
        await bench.lifecycle.interrupt([])
