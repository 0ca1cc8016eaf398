"""Upgrades: everything restarted one after the other under load, and keepers of an older version.

Load is cells that print all the time and kernels that come and go. Nothing may be lost, doubled or
refused without saying when to come again.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from support.cluster import Cluster
from support.matrix.gateway import Gateway, gateways
from support.matrix.ledger import Ledger, Pace, Row
from support.matrix.node import Node
from support.matrix.open_cell import OpenCell, under_way
from support.matrix.previous import previous_commit, unpack
from support.notebook import Notebook, notebook
from support.processes import ManagedProcess

pytestmark = [pytest.mark.long, pytest.mark.timeout(420)]

NOTEBOOKS = 3


@pytest.fixture
def rolled(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "rolled", proxies=3, launchers=2).start()
    try:
        yield cluster
    finally:
        cluster.stop()


@asynccontextmanager
async def load(cluster: Cluster, books: list[Notebook], row: Row) -> AsyncIterator[list[OpenCell]]:
    """A printing cell in each notebook, and one kernel after another started and deleted."""
    async with AsyncExitStack() as stack:
        cells = [
            await stack.enter_async_context(
                under_way(book, row, number, cluster.base / "load", interval=0.02)
            )
            for number, book in enumerate(books)
        ]
        proxies = await stack.enter_async_context(gateways(cluster.proxy_urls, cluster.token))
        stop = asyncio.Event()
        churning = asyncio.create_task(churn(proxies, stop))
        try:
            yield cells
        finally:
            stop.set()
            count = await churning
            row.note = f"{count} kernels started and deleted meanwhile"
        assert count > 0


async def churn(proxies: list[Gateway], stop: asyncio.Event) -> int:
    """Through whichever proxy is up, as a client with several addresses does it."""
    first, *others = proxies
    count = 0
    while not stop.is_set():
        await first.delete(await first.start(others=others), others=others)
        count += 1
    return count


async def roll(process: ManagedProcess) -> None:
    """As a package upgrade does it: SIGTERM, wait, start."""
    process.signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 30) == 0, process.tail()
    process.start()


async def test_everything_restarted_in_turn_under_load(rolled: Cluster, ledger: Ledger) -> None:
    fault = "rolling restart of 3 proxies and 2 launchers"
    server = await asyncio.to_thread(rolled.jupyter)
    with ledger.row(fault, "longest silence of each cell", Pace.LONG) as row:
        async with AsyncExitStack() as stack:
            books = [
                await stack.enter_async_context(notebook(server.url, server.token))
                for _ in range(NOTEBOOKS)
            ]
            for book in books:
                await book.run("import os; pid = os.getpid()")
            async with load(rolled, books, row) as cells:
                for cell in cells:
                    cell.mark()
                for n in range(3):
                    await roll(rolled.proxies[n])
                    await asyncio.to_thread(rolled.wait_proxy, n, kernelspecs=True)
                for launcher in rolled.launchers:
                    await roll(launcher)
                    for cell in cells:
                        await cell.caught_up()
            for book in books:
                assert (await book.run("print(pid == os.getpid())")).text == "True\n"
                await book.rest("DELETE", "")


async def test_keepers_of_the_version_before(tmp_path: Path, ledger: Ledger) -> None:
    """An older launcher's keepers under today's proxies; then today's launcher adopts them."""
    commit = previous_commit()
    old = unpack(commit, tmp_path / "old")
    cluster = Cluster(tmp_path / "upgraded", proxies=2)
    node = Node(cluster.base / "launcher")
    cluster.use_launcher(old)
    with ledger.row("keepers of the version before", "silence in the cell", Pace.LONG) as row:
        row.note = f"of commit {commit[:9]}"
        try:
            await asyncio.to_thread(cluster.start)
            server = await asyncio.to_thread(cluster.jupyter)
            async with notebook(server.url, server.token) as book:
                await book.run("import os; pid = os.getpid()")
                keeper = node.keeper(book.kernel_id)
                assert str(old) in psutil.Process(keeper["pid"]).environ()["PYTHONPATH"]
                await new_proxies(cluster, server.process.pid, book, row)
                await new_launcher(cluster, book, row)
                assert node.keeper(book.kernel_id)["pid"] == keeper["pid"], "the old one, adopted"
                await lifecycle(book)
            assert node.processes(book.kernel_id) == []
        finally:
            await asyncio.to_thread(cluster.stop)


async def new_proxies(cluster: Cluster, shim: int, book: Notebook, row: Row) -> None:
    """Today's proxies end in turn over yesterday's keeper."""
    for number, how in enumerate((signal.SIGKILL, signal.SIGTERM)):
        carrier = await asyncio.to_thread(cluster.carrier, shim)
        async with under_way(book, row, number, cluster.base / "old-keeper") as cell:
            cell.mark()
            cluster.proxies[carrier].signal(how)
            await cell.caught_up()
        await asyncio.to_thread(cluster.proxies[carrier].wait, 20)
        await asyncio.to_thread(cluster.start_proxy, carrier)


async def new_launcher(cluster: Cluster, book: Notebook, row: Row) -> None:
    """The launcher is upgraded in mid-cell; what it finds it adopts."""
    async with under_way(book, row, 2, cluster.base / "old-keeper") as cell:
        cell.mark()
        cluster.launcher.signal(signal.SIGTERM)
        await asyncio.to_thread(cluster.launcher.wait, 30)
        cluster.use_launcher(None)
        cluster.launcher.start()
        await cell.caught_up()
        async with gateways(cluster.proxy_urls, cluster.token) as proxies:
            await proxies[1].delete(await proxies[0].start())  # by a new keeper, beside it
        await cell.caught_up()


async def lifecycle(book: Notebook) -> None:
    """Interrupt, restart and delete of an old keeper's kernel by today's proxies and launcher."""
    assert (await book.run("print(pid == os.getpid())")).text == "True\n"
    hanging = await book.execute("print('hangs'); import time; time.sleep(600)")
    await hanging.wait_text("hangs\n")
    status, answer = await book.rest("POST", "/interrupt")
    assert status == 204, answer
    assert (await hanging.wait_done()).reply_content["ename"] == "KeyboardInterrupt"
    status, answer = await book.rest("POST", "/restart")
    assert status == 200, answer
    assert (await book.run("print('pid' in dir())")).text == "False\n"
    status, answer = await book.rest("DELETE", "")
    assert status == 204, answer
