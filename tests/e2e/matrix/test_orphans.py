"""No kernel without record, no record without kernel, from whatever a start or a delete left.

Each case ends with the same count: what `/api/kernels` lists, what the launcher's node holds by its
files, and the processes that live by their environment are the same set.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator

import pytest

from holdfast_protocol.keys import Keys, Kind
from holdfast_proxy.store.contract import Delete
from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore
from support.cluster import Cluster, JupyterServer
from support.matrix.gateway import Gateway
from support.matrix.node import Node
from support.notebook import notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

KEYS = Keys("default")


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return Node(cluster.base / "launcher")


@pytest.fixture(autouse=True)
async def nothing_left(cluster: Cluster, proxies: list[Gateway], node: Node) -> AsyncIterator[None]:
    """After each case, what is listed is what lives; then all of it is deleted."""
    yield
    seen: tuple[object, ...] = ()
    try:
        async with asyncio.timeout(60):
            while True:
                status, models, _ = await proxies[0].once("GET", "/api/kernels")
                living = {model["id"] for model in models or () if alive(model)}
                held = {name for name in node.kernel_ids() if node.processes(name)}
                seen = (status, living, held, node.kernel_ids())
                if status == 200 and living == held:
                    break
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"listed and living do not agree: {seen}") from None
    for kernel_id in living:
        await proxies[0].delete(kernel_id)
        await gone(node, kernel_id)


async def gone(node: Node, kernel_id: str) -> None:
    """No process of it, and no keeper's file."""
    async with asyncio.timeout(60):
        while node.processes(kernel_id) or kernel_id in node.kernel_ids():  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.1)


def alive(model: dict[str, object]) -> bool:
    return model["execution_state"] != "dead"


async def one_kernel(node: Node, kernel_id: str) -> None:
    """Exactly one process of this id, soon and for good."""
    async with asyncio.timeout(60):
        while len(node.processes(kernel_id)) != 1:  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.1)


async def begin_start(proxies: list[Gateway], kernel_id: str) -> asyncio.Task[tuple[int, object]]:
    """Ask proxy 0 for a start, and return when its record is there."""
    body = {"env": {"KERNEL_ID": kernel_id}}

    async def ask() -> tuple[int, object]:
        status, model, _ = await proxies[0].once("POST", "/api/kernels", json=body)
        return status, model

    asking = asyncio.create_task(ask())
    await proxies[1].wait_row(kernel_id, state="starting")
    return asking


async def test_one_start_for_one_id(proxies: list[Gateway], node: Node) -> None:
    """The same id at every proxy at once, twice at one of them, and again when it runs."""
    kernel_id = str(uuid.uuid4())
    started = await asyncio.gather(*(proxies[n % 3].start(kernel_id) for n in range(4)))
    assert set(started) == {kernel_id}
    await one_kernel(node, kernel_id)
    (process,) = node.processes(kernel_id)
    assert await proxies[2].start(kernel_id) == kernel_id
    assert node.processes(kernel_id) == [process]


async def test_launcher_killed_in_mid_start(
    cluster: Cluster, proxies: list[Gateway], node: Node
) -> None:
    """It has the order or not, nobody knows; the call goes on with the next launcher process."""
    kernel_id = str(uuid.uuid4())
    cluster.launcher.signal(signal.SIGSTOP)
    asking = await begin_start(proxies, kernel_id)
    cluster.launcher.kill()
    cluster.launcher.start()
    await asking
    assert await proxies[1].start(kernel_id) == kernel_id
    await one_kernel(node, kernel_id)


async def test_launcher_killed_when_the_keeper_was_forked(
    cluster: Cluster, proxies: list[Gateway], node: Node
) -> None:
    """The keeper's file is there and its kernel is starting."""
    kernel_id = str(uuid.uuid4())
    asking = await begin_start(proxies, kernel_id)
    async with asyncio.timeout(60):
        while kernel_id not in node.kernel_ids():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.005)
    cluster.launcher.kill()
    cluster.launcher.start()
    await asking
    assert await proxies[1].start(kernel_id) == kernel_id
    await one_kernel(node, kernel_id)


@pytest.mark.parametrize("client_returns", [True, False])
async def test_proxy_killed_in_mid_start(
    cluster: Cluster, proxies: list[Gateway], node: Node, client_returns: bool
) -> None:
    """Another one owns the half of a start then; it needs no client to finish it."""
    kernel_id = str(uuid.uuid4())
    cluster.launcher.signal(signal.SIGSTOP)
    asking = await begin_start(proxies, kernel_id)
    owner = int((await proxies[1].row(kernel_id))["owner"].removeprefix("proxy-"))
    cluster.proxies[owner].kill()
    cluster.launcher.signal(signal.SIGCONT)
    await asking
    left = proxies[(owner + 1) % 3]
    if client_returns:
        assert await left.start(kernel_id) == kernel_id
    await left.wait_row(kernel_id, state="idle")
    await one_kernel(node, kernel_id)
    await asyncio.to_thread(cluster.start_proxy, owner)


async def test_record_without_keeper(cluster: Cluster, proxies: list[Gateway], node: Node) -> None:
    """Keeper and kernel ended while their launcher was away: dead on its word when it is back."""
    kernel_id = await proxies[0].start()
    await asyncio.to_thread(node.lose_power, cluster.launcher.pid)
    await asyncio.to_thread(cluster.launcher.wait, 10)
    cluster.launcher.start()
    row = await proxies[1].wait_row(kernel_id, state="dead")
    assert row["reason"]
    assert node.processes(kernel_id) == []


async def test_keeper_without_record(
    cluster: Cluster, server: JupyterServer, proxies: list[Gateway], node: Node
) -> None:
    """etcd came back from a backup that is older than the kernel: its record is restored."""
    async with notebook(server.url, server.token) as book:
        await book.run("kept = 'kept'")
        keys = [KEYS.of(kind, book.kernel_id) for kind in (Kind.KERNEL, Kind.OWNER, Kind.SESSION)]
        async with EtcdStore(EtcdConfig(endpoints=tuple(cluster.etcd_urls))) as store:
            await store.txn([], [Delete(key) for key in keys], unconditional=True)
        await proxies[0].wait_row(book.kernel_id, state="idle")
        assert "record restored" in [
            line["kind"] for line in await proxies[0].timeline(book.kernel_id)
        ]
        assert (await book.run("print(kept)")).text == "kept\n"
        assert (await proxies[2].restart(book.kernel_id)).status == 200
        assert (await book.run("print('kept' in dir())")).text == "False\n"
    await one_kernel(node, book.kernel_id)


async def test_delete_that_nobody_could_confirm(
    cluster: Cluster, proxies: list[Gateway], node: Node
) -> None:
    """Launcher and keeper stand still, and the owner dies of it: the next one ends the kernel."""
    kernel_id = await proxies[0].start()
    owner = int((await proxies[0].row(kernel_id))["owner"].removeprefix("proxy-"))
    keeper = int(node.keeper(kernel_id)["pid"])
    cluster.launcher.signal(signal.SIGSTOP)
    os.kill(keeper, signal.SIGSTOP)
    try:
        asking = asyncio.create_task(proxies[owner].once("DELETE", f"/api/kernels/{kernel_id}"))
        left = proxies[(owner + 1) % 3]
        await left.wait_row(kernel_id, state="deleting")
        cluster.proxies[owner].kill()
        await asking
    finally:
        os.kill(keeper, signal.SIGCONT)
        cluster.launcher.signal(signal.SIGCONT)
    await gone(node, kernel_id)
    await asyncio.to_thread(cluster.start_proxy, owner)
