"""Longer failures in mid-cell: all proxies away, etcd away, the launcher killed, a proxy frozen.

How long an outage lasts is measured by the cell itself: it ends when the cell has printed a
given number of lines more, so that no test sleeps for time to pass.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from support.cluster import Cluster, JupyterServer
from support.figures import report
from support.notebook import Execution, Notebook, notebook
from support.printer import PrinterCell
from support.processes import wait_until

pytestmark = pytest.mark.e2e

#: Seconds that an outage lasts; the promises say 60.
OUTAGE = float(os.environ.get("HOLDFAST_OUTAGE", "4"))
#: Longer than a lifecycle call stays meaningful (10 s), so that the held ones must be refused.
FREEZE = min(max(OUTAGE, 14.0), 30.0)
#: Tries of the failures that take seconds.
TRIES = int(os.environ.get("HOLDFAST_TRIES", "1"))
INTERVAL = 0.02
BEFORE = 40
AFTER = 60


async def outage_in_mid_cell(
    cluster: Cluster,
    book: Notebook,
    number: int,
    begin: Callable[[], None],
    end: Callable[[], None],
    *,
    seconds: float = OUTAGE,
) -> tuple[Execution, PrinterCell, float, float]:
    """Run ``begin`` inside a cell and ``end`` when it has gone on for ``seconds``; wait for it.

    Returns the execution, its cell, and the loop times of begin and end.
    """
    lines = BEFORE + int(seconds / INTERVAL) + AFTER
    cell = PrinterCell(number, lines, cluster.base / "outages.side", interval=INTERVAL)
    execution = await book.execute(cell.code)
    await execution.wait_text(f"{number}:{BEFORE}\n")
    clock = asyncio.get_running_loop().time
    began = clock()
    await asyncio.to_thread(begin)
    until = cell.progress() + int(seconds / INTERVAL)
    await asyncio.to_thread(
        wait_until, lambda: cell.progress() >= min(until, lines - AFTER // 2),
        seconds=seconds * 2 + 30, what="the cell going on during the outage",
    )  # fmt: skip
    ended = clock()
    await asyncio.to_thread(end)
    await execution.wait_done(seconds * 2 + 60)
    return execution, cell, began, ended


@pytest.mark.timeout(120 + 4 * OUTAGE)
async def test_every_proxy_killed(cluster: Cluster, server: JupyterServer) -> None:
    def begin() -> None:
        for proxy in cluster.proxies:
            proxy.kill()

    def end() -> None:
        for n in range(len(cluster.proxies)):
            cluster.start_proxy(n)

    async with notebook(server.url, server.token) as book:
        execution, cell, _, _ = await outage_in_mid_cell(cluster, book, 1, begin, end)
        cell.check(execution)
        again = await book.run("print('and on')")
        assert again.text == "and on\n"
        await book.rest("DELETE", "")


@pytest.mark.timeout(180)
async def test_the_only_proxy_killed_and_restarted(tmp_path: Path) -> None:
    alone = Cluster(tmp_path / "one", proxies=1).start()
    try:
        server = alone.jupyter()
        async with notebook(server.url, server.token) as book:
            for number in range(TRIES):
                execution, cell, _, _ = await outage_in_mid_cell(
                    alone,
                    book,
                    number,
                    lambda: alone.proxies[0].kill() and None,
                    lambda: alone.start_proxy(0),
                    seconds=0.5,
                )
                cell.check(execution)
    finally:
        alone.stop()


@pytest.mark.timeout(120 + 4 * OUTAGE)
async def test_launcher_killed_and_restarted(cluster: Cluster, server: JupyterServer) -> None:
    def end() -> None:
        cluster.launcher.start()

    async with notebook(server.url, server.token) as book:
        execution, cell, began, _ = await outage_in_mid_cell(
            cluster, book, 2, lambda: cluster.launcher.kill() and None, end, seconds=2
        )
        cell.check(execution)
        report("launcher SIGKILL in mid-cell", [execution.longest_silence(began)])
        status, model = await book.rest("GET", "")
        assert (status, model["id"]) == (200, book.kernel_id)
        status, _ = await book.rest("POST", "/restart")
        assert status == 200
        assert (await book.run("print('restarted')")).text == "restarted\n"
        status, _ = await book.rest("DELETE", "")
        assert status == 204
    async with notebook(server.url, server.token) as another:
        assert (await another.run("print('new')")).text == "new\n"
        await another.rest("DELETE", "")


@pytest.mark.timeout(120 + 4 * OUTAGE)
async def test_etcd_killed_and_a_proxy_meanwhile(cluster: Cluster, server: JupyterServer) -> None:
    silences: list[float] = []

    async with notebook(server.url, server.token) as book:
        carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)

        def begin() -> None:
            cluster.etcd.kill()

        def end() -> None:
            cluster.start_etcd()
            cluster.start_proxy(carrier)

        lines = BEFORE + int(OUTAGE / INTERVAL) + AFTER
        cell = PrinterCell(3, lines, cluster.base / "outages.side", interval=INTERVAL)
        execution = await book.execute(cell.code)
        await execution.wait_text(f"3:{BEFORE}\n")
        await asyncio.to_thread(begin)
        half = cell.progress() + int(OUTAGE / INTERVAL / 2)
        await execution.wait_text(f"3:{half}\n", OUTAGE + 30)
        moment = asyncio.get_running_loop().time()
        await asyncio.to_thread(cluster.proxies[carrier].kill)
        await execution.wait_text(f"3:{lines - AFTER}\n", OUTAGE + 30)
        silences.append(execution.longest_silence(moment))
        status, _ = await book.rest("POST", "/interrupt")
        assert status == 204, "interrupt needs no etcd"
        await execution.wait_done()
        await asyncio.to_thread(end)
        report("proxy SIGKILL while etcd is away", silences)
        assert cell.side_file.read_text().split().count("3") == 1
        shown = [int(line.split(":")[1]) for line in execution.text.splitlines()]
        assert shown == list(range(len(shown)))
        assert len(shown) >= lines - AFTER
        assert execution.reply_content["ename"] == "KeyboardInterrupt"
        await start_and_delete(cluster)
        status, _ = await book.rest("DELETE", "")
        assert status == 204


async def start_and_delete(cluster: Cluster) -> None:
    """Start a kernel at the first proxy and delete it: what waits while etcd is away."""
    headers = {"Authorization": f"token {cluster.token}"}
    kernels = f"{cluster.proxy_urls[0]}/api/kernels"
    async with asyncio.timeout(30), aiohttp.ClientSession(headers=headers) as http:
        while True:
            async with http.post(kernels, json={}) as response:
                model = await response.json()
                if response.status == 201:
                    break
                assert response.status == 503, model
                assert "Retry-After" in response.headers
        async with http.delete(f"{kernels}/{model['id']}") as response:
            assert response.status == 204


@pytest.mark.timeout(120 + TRIES * (60 + 3 * FREEZE))
async def test_carrying_proxy_frozen(cluster: Cluster, server: JupyterServer) -> None:
    """SIGSTOP, then SIGCONT: the stream moves, and the woken proxy has no effect."""
    silences = []
    async with notebook(server.url, server.token) as book:
        await book.run("kept = 'kept'")
        for number in range(10, 10 + TRIES):
            carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)
            frozen = cluster.proxies[carrier]
            url = f"{cluster.proxy_urls[carrier]}/api/kernels/{book.kernel_id}"
            async with aiohttp.ClientSession(
                headers={"Authorization": f"token {cluster.token}"}
            ) as http:
                lines = BEFORE + int(FREEZE / INTERVAL) + AFTER
                cell = PrinterCell(number, lines, cluster.base / "outages.side", interval=INTERVAL)
                execution = await book.execute(cell.code)
                await execution.wait_text(f"{number}:{BEFORE}\n")
                began = asyncio.get_running_loop().time()
                frozen.signal(signal.SIGSTOP)
                held = [
                    asyncio.create_task(_status(http, "DELETE", url)),
                    asyncio.create_task(_status(http, "POST", f"{url}/restart")),
                ]
                await execution.wait_text(f"{number}:{lines - AFTER}\n", 2 * FREEZE + 30)
                frozen.signal(signal.SIGCONT)
                await execution.wait_done()
                silences.append(execution.longest_silence(began))
                cell.check(execution)
                statuses = await asyncio.gather(*held)
                assert all(status not in (200, 204) for status in statuses), statuses
            assert (await book.run("print(kept)")).text == "kept\n"
        report(f"proxy SIGSTOP for {FREEZE:g} s in mid-cell", silences, lost=0, doubled=0)
        assert max(silences) <= 3.0
        status, _ = await book.rest("DELETE", "")
        assert status == 204


async def _status(http: aiohttp.ClientSession, method: str, url: str) -> int:
    try:
        async with http.request(method, url) as response:
            return response.status
    except aiohttp.ClientError:
        return 0
