"""The ways to a kernel that the benchmark compares, behind one face.

Every target has a kernel of its own, so that they can take turns in one run: a noisy machine is
then noisy for all of them alike. Clients decode nothing that they do not need; the direct one is
jupyter_client as its users use it.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from queue import Empty

import zmq
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from support.cluster import Cluster
from support.kernel_gateway import kernel_gateway
from support.notebook import Notebook, notebook

PATIENCE = 120.0


@dataclass(frozen=True)
class Burst:
    """What came of one cell: messages of the awaited type, their buffer bytes, and how long it
    took in seconds from the request to the last of them (or to giving up)."""

    count: int
    size: int
    seconds: float


class Target(ABC):
    """One way to one kernel."""

    name: str

    @abstractmethod
    async def round_trip(self) -> float:
        """Execute ``pass``; seconds from the request until reply and idle are both there."""

    @abstractmethod
    async def burst(self, code: str, msg_type: str, count: int) -> Burst:
        """Execute ``code`` and collect until ``count`` messages of ``msg_type``, or idle and a
        second of silence: peers lose messages and would never reach the count."""


class Direct(Target):
    """jupyter_client straight over ZMQ: the ceiling."""

    name = "direct ZMQ"

    def __init__(self, client: AsyncKernelClient) -> None:
        self._client = client

    async def round_trip(self) -> float:
        began = time.perf_counter()
        msg_id = self._client.execute("pass")
        await asyncio.gather(self._reply(msg_id), self._idle(msg_id))
        return time.perf_counter() - began

    async def burst(self, code: str, msg_type: str, count: int) -> Burst:
        began = last = time.perf_counter()
        msg_id = self._client.execute(code)
        got = size = 0
        while got < count:
            try:
                message = await self._client.get_iopub_msg(timeout=3.0)
            except Empty:  # what ZMQ dropped never comes; the table shows how many came
                break
            if message["msg_type"] == msg_type:
                got += 1
                size += sum(len(buffer) for buffer in message["buffers"])
                last = time.perf_counter()
        await self._reply(msg_id)
        return Burst(got, size, last - began)

    async def _reply(self, msg_id: str) -> None:
        while True:
            message = await self._client.get_shell_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == msg_id:
                return

    async def _idle(self, msg_id: str) -> None:
        while True:
            message = await self._client.get_iopub_msg(timeout=PATIENCE)
            if (
                message["parent_header"].get("msg_id") == msg_id
                and message["content"].get("execution_state") == "idle"
            ):
                return


class Websocket(Target):
    """Anything that speaks Jupyter's kernel websocket."""

    def __init__(self, name: str, book: Notebook) -> None:
        self.name = name
        self._book = book

    async def round_trip(self) -> float:
        began = time.perf_counter()
        await (await self._book.execute("pass")).wait_done(PATIENCE)
        return time.perf_counter() - began

    async def burst(self, code: str, msg_type: str, count: int) -> Burst:
        book = self._book
        start = len(book.everything)
        began = time.monotonic()
        execution = await book.execute(code)

        def got() -> int:
            return sum(m.msg_type == msg_type for _, m in book.everything[start:])

        try:
            await execution.wait_for(lambda: execution.idle, PATIENCE)
            while got() < count:
                book.arrived.clear()
                await asyncio.wait_for(book.arrived.wait(), 1.0)
        except TimeoutError:
            pass
        wanted = [(at, m) for at, m in book.everything[start:] if m.msg_type == msg_type]
        last = wanted[-1][0] if wanted else time.monotonic()
        size = sum(len(buffer) for _, m in wanted for buffer in m.buffers)
        del book.everything[:]
        book.executions.clear()
        return Burst(len(wanted), size, last - began)


@asynccontextmanager
async def direct() -> AsyncIterator[Target]:
    context = zmq.asyncio.Context()
    context.setsockopt(zmq.RCVHWM, 0)  # the ceiling is the kernel's, not this client's queue
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", context=context)
    await manager.start_kernel()
    client = manager.client()
    assert isinstance(client, AsyncKernelClient)
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        yield Direct(client)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
        context.destroy(linger=0)


@asynccontextmanager
async def all_targets(cluster: Cluster) -> AsyncIterator[list[Target]]:
    """Direct, a plain client at a proxy, the shim in Jupyter Server, and Kernel Gateway."""
    server = cluster.jupyter("bench-jupyter")
    async with AsyncExitStack() as stack:
        gateway = stack.enter_context(kernel_gateway(cluster.base / "kernel-gateway"))
        ways: list[tuple[str, str, str]] = [
            ("Holdfast, plain client", cluster.proxy_urls[0], cluster.token),
            ("Holdfast, through the shim", server.url, server.token),
            ("Kernel Gateway 3.0.1", gateway.url, gateway.token),
        ]
        targets = [await stack.enter_async_context(direct())]
        for name, url, token in ways:
            book = await stack.enter_async_context(notebook(url, token))
            stack.push_async_callback(_delete, book)
            targets.append(Websocket(name, book))
        for target in targets:
            for _ in range(5):
                await target.round_trip()
        yield targets


async def _delete(book: Notebook) -> None:
    await book.rest("DELETE", "")
