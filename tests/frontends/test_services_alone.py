"""@jupyterlab/services at one proxy with nothing in front, and kernels that may not come back.

What a front end sees without a second proxy behind its address is slower, and here it is said
how much: after a refused connection the library waits 10 to 30 s, and it never notices a proxy
that is frozen.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.cluster import Cluster, http_get
from support.figures import report
from support.front_end import FrontEnd, front_end
from support.printer import PrinterCell

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(240)]

#: The longest wait of the library after a network error, and some more.
LIBRARY_WAITS = 30.0 + 5.0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One proxy; kernels are not started again when they crash."""
    base = tmp_path_factory.mktemp("alone")
    cluster = Cluster(base, proxies=1, launcher_toml="autorestart_limit = 0").start()
    try:
        yield cluster
    finally:
        cluster.stop()


@asynccontextmanager
async def at_the_proxy(cluster: Cluster, log: Path) -> AsyncIterator[FrontEnd]:
    async with front_end(log) as end:
        await end.do("start", url=cluster.proxy_urls[0], token=cluster.token, inQuery=False)
        await end.wait_connected()
        yield end
        await end.attempt("shutdown")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_the_only_proxy_ends_and_comes_back(
    alone: Cluster, tmp_path: Path, how: signal.Signals
) -> None:
    async with at_the_proxy(alone, tmp_path / "node.log") as end:
        printer = PrinterCell(1, 400, tmp_path / "side", interval=0.01)
        cell = await end.execute("cell", printer.code)
        await end.wait_text(cell, "1:30\n")
        moment = time.monotonic()
        alone.proxies[0].signal(how)
        await asyncio.to_thread(alone.proxies[0].wait, 10)
        await asyncio.to_thread(alone.start_proxy, 0)
        await end.wait_done(cell)
        assert cell.once.splitlines() == [f"1:{i}" for i in range(400)]
        assert cell.reply["status"] == "ok"
        assert end.connections == ["connected", "connecting", "connected"]
        silence = cell.longest_silence(moment)
        report(f"@jupyterlab/services, its only proxy {how.name}", [silence])
        assert silence <= LIBRARY_WAITS


async def test_a_frozen_proxy_is_waited_for_until_it_thaws(alone: Cluster, tmp_path: Path) -> None:
    """Nobody tells the library. The keeper gives the connection up after 10 s of silence, so
    that the front end is told at once when the proxy can speak again."""
    proxy = alone.proxies[0]
    async with at_the_proxy(alone, tmp_path / "node.log") as end:
        printer = PrinterCell(2, 1500, tmp_path / "side", interval=0.01)
        cell = await end.execute("cell", printer.code)
        await end.wait_text(cell, "2:30\n")
        proxy.signal(signal.SIGSTOP)
        try:
            await end.wait_for(
                lambda: printer.progress() > 1400, seconds=60, what="the cell going on"
            )
            assert end.connections == ["connected"], "the library cannot know"
        finally:
            proxy.signal(signal.SIGCONT)
        await end.wait_done(cell)
        assert cell.once.splitlines() == [f"2:{i}" for i in range(1500)]
        assert cell.reply["status"] == "ok"
        assert end.connections == ["connected", "connecting", "connected"]
    # A proxy that was frozen finds its leases ended; the launcher joins it again by heartbeat.
    await asyncio.to_thread(alone.wait_proxy, 0, kernelspecs=True)


async def test_a_kernel_that_dies_for_good_is_shown_as_dead(alone: Cluster, tmp_path: Path) -> None:
    async with at_the_proxy(alone, tmp_path / "node.log") as end:
        code = "import os, time; print('last words'); time.sleep(1); os._exit(3)"
        cell = await end.execute("end", code)
        await end.wait_for(lambda: end.of("disposed"), what="the end")
        assert end.statuses[-1] == "dead"
        assert cell.text == "last words\n"
        assert cell.reply["status"] == "error"
        assert cell.reply["ename"] == "HoldfastKernelDied"
        assert "autorestarting" not in end.statuses


async def test_a_frozen_front_end_sees_the_gap(tmp_path: Path) -> None:
    """The browser's machine sleeps while the kernel says more than its log may hold."""
    small = "log_memory_bytes = 65536\nlog_disk_bytes = 262144\n"
    cluster = Cluster(tmp_path / "small", proxies=1, launcher_toml=small)
    await asyncio.to_thread(cluster.start)
    try:
        async with at_the_proxy(cluster, tmp_path / "node.log") as end:
            await lose_output(end, cluster)
            after = await end.run("after", "print('after')")
            assert (after.text, after.stderr) == ("after\n", "")
    finally:
        await asyncio.to_thread(cluster.stop)


async def lose_output(end: FrontEnd, cluster: Cluster) -> None:
    code = (
        "import time; print('begun'); time.sleep(0.3)\n"
        "from IPython.display import publish_display_data as show\n"
        "for i in range(600): show({'text/plain': '%06d' % i + 'x' * 100_000})\n"
    )
    cell = await end.execute("much", code)
    await end.wait_text(cell, "begun\n")
    os.kill(end.pid, signal.SIGSTOP)
    try:
        # The cell's own end would be too early: the kernel may still be sending what it said.
        await end.wait_for(lambda: log_head(cluster) > 600, what="all output being at the keeper")
    finally:
        os.kill(end.pid, signal.SIGCONT)
    await end.wait_done(cell)
    assert "messages lost: log full" in cell.stderr
    # The reply comes from the kernel by another socket than the output, and may be older than it.
    assert cell.reply["status"] == "ok" or cell.reply["ename"] == "HoldfastGap"


def log_head(cluster: Cluster) -> int:
    """How many messages the only kernel's log has seen, as the cluster's overview has it."""
    url = f"{cluster.proxy_urls[0]}/holdfast/v1/cluster"
    status, body = http_get(url, token=cluster.token)
    assert status == 200, body
    return sum(kernel["log"]["head"] for kernel in json.loads(body)["kernels"] if kernel["log"])
