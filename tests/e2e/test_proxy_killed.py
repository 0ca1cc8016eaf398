"""The main promise: a proxy dies in mid-cell and the cell goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from support.cluster import Cluster, JupyterServer
from support.figures import percentile, report
from support.notebook import Execution, Notebook, notebook
from support.printer import PrinterCell

pytestmark = pytest.mark.e2e

KILLS = int(os.environ.get("HOLDFAST_KILLS", "3"))
LINES = 160


async def kill_in_mid_cell(
    cluster: Cluster, server: JupyterServer, book: Notebook, cell: PrinterCell, how: signal.Signals
) -> tuple[Execution, float]:
    """Run the cell, end the carrying proxy inside it, bring it back; the user's silence in s."""
    execution = await book.execute(cell.code)
    await execution.wait_text(f"{cell.number}:{random.randint(5, LINES // 2)}\n")
    carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)
    moment = asyncio.get_running_loop().time()
    proxy = cluster.proxies[carrier]
    proxy.signal(how)
    await execution.wait_done()
    await asyncio.to_thread(proxy.wait, 10)
    await asyncio.to_thread(cluster.start_proxy, carrier)
    return execution, execution.longest_silence(moment)


async def end_many(
    cluster: Cluster, server: JupyterServer, how: signal.Signals, name: str
) -> list[float]:
    silences = []
    side = cluster.base / f"{name}.side"
    async with notebook(server.url, server.token) as book:
        await book.run("pass")
        for number in range(KILLS):
            cell = PrinterCell(number, LINES, side)
            execution, silence = await kill_in_mid_cell(cluster, server, book, cell, how)
            cell.check(execution)
            silences.append(silence)
        await book.rest("DELETE", "")
    report(name, silences, lost=0, doubled=0)
    return silences


@pytest.mark.timeout(60 + 12 * KILLS)
async def test_kill_9_of_the_carrying_proxy(cluster: Cluster, server: JupyterServer) -> None:
    silences = await end_many(cluster, server, signal.SIGKILL, "proxy SIGKILL in mid-cell")
    if len(silences) >= 100:
        assert percentile(silences, 0.5) <= 0.100
        assert percentile(silences, 0.99) <= 0.400


@pytest.mark.timeout(60 + 12 * KILLS)
async def test_sigterm_of_the_carrying_proxy(cluster: Cluster, server: JupyterServer) -> None:
    silences = await end_many(cluster, server, signal.SIGTERM, "proxy SIGTERM in mid-cell")
    if len(silences) >= 100:
        assert percentile(silences, 0.99) <= 0.200
