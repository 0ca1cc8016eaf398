"""Rows of the proxies: ended, killed, frozen; in mid-cell, and with a lifecycle call waiting."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from support.cluster import Cluster, JupyterServer
from support.matrix.gateway import Gateway
from support.matrix.ledger import TRIES, Ledger, Pace
from support.matrix.open_cell import under_way
from support.notebook import notebook

pytestmark = pytest.mark.long

#: The proxies' lease (default) and what the bar allows on top.
LIFECYCLE_BAR = 5.0 + 2.0


@pytest.mark.timeout(120 + 12 * TRIES)
@pytest.mark.parametrize(
    ("how", "bar"), [(signal.SIGTERM, 0.2), (signal.SIGKILL, 0.3)], ids=["SIGTERM", "SIGKILL"]
)
async def test_proxy_ends(
    cluster: Cluster, server: JupyterServer, ledger: Ledger, how: signal.Signals, bar: float
) -> None:
    """The one that carries the tunnel, with two others alive."""
    with ledger.row(f"proxy {how.name}", "silence in the cell", Pace.INSTANT, bar=bar) as row:
        async with notebook(server.url, server.token) as book:
            await book.run("pass")
            for number in range(row.tries):
                carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)
                async with under_way(book, row, number, cluster.base / how.name) as cell:
                    cell.mark()
                    cluster.proxies[carrier].signal(how)
                    await cell.caught_up()
                await asyncio.to_thread(cluster.proxies[carrier].wait, 20)
                await asyncio.to_thread(cluster.start_proxy, carrier)
            await book.rest("DELETE", "")


@pytest.mark.timeout(180 + 45 * min(TRIES, Pace.SECONDS.value))
async def test_proxy_frozen(
    cluster: Cluster, server: JupyterServer, proxies: list[Gateway], ledger: Ledger
) -> None:
    """SIGSTOP of the carrying proxy and of the one that owns the kernels, often the same one.
    Calls that are asked for at once wait for the lease; the thawed ones have no effect."""
    fault = "proxy frozen (SIGSTOP)"
    stream = ledger.row(fault, "silence in the cell", Pace.SECONDS, bar=3.0)
    deletes = ledger.row(fault, "delete of a kernel it owned", Pace.SECONDS, bar=LIFECYCLE_BAR)
    restarts = ledger.row(
        fault, "restart of one, beyond an undisturbed one", Pace.SECONDS, bar=LIFECYCLE_BAR
    )
    with stream as row, deletes as deleted, restarts as restarted:
        async with notebook(server.url, server.token) as book:
            await book.run("kept = 'kept'")
            for number in range(row.tries):
                carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)
                one, two = [await proxies[carrier].start() for _ in range(2)]
                owner = int((await proxies[carrier].row(one))["owner"].removeprefix("proxy-"))
                frozen = {carrier, owner}
                free = proxies[next(n for n in range(3) if n not in frozen)]
                undisturbed = (await free.restart(two)).seconds
                async with under_way(book, row, number, cluster.base / "frozen") as cell:
                    began = cell.mark()
                    for n in frozen:
                        cluster.proxies[n].signal(signal.SIGSTOP)
                    await free.delete(one)
                    deleted.seconds.append(time.monotonic() - began)
                    await free.restart(two)
                    restarted.seconds.append(time.monotonic() - began - undisturbed)
                    await cell.caught_up()
                for n in frozen:
                    cluster.proxies[n].signal(signal.SIGCONT)
                assert (await book.run("print(kept)")).text == "kept\n"
                await free.delete(two)
                for n in frozen:
                    await asyncio.to_thread(cluster.wait_proxy, n)
            await book.rest("DELETE", "")


@pytest.mark.timeout(240)
async def test_an_owner_that_slept_past_its_lease_has_no_effect(
    cluster: Cluster, server: JupyterServer, proxies: list[Gateway], ledger: Ledger
) -> None:
    """Its clock jumps across ``fence_at`` while it holds a delete and a restart with its own
    token; it wakes when another one owns the kernel. Both are refused, the variables stay."""
    with ledger.row("owner paused across its lease", "its held calls refused", Pace.LONG) as row:
        for _ in range(row.tries):
            async with notebook(server.url, server.token) as book:
                await book.run("kept = 'kept'")
                kernel = f"/api/kernels/{book.kernel_id}"
                owner = int((await proxies[0].row(book.kernel_id))["owner"][len("proxy-") :])
                free = proxies[(owner + 1) % 3]
                sleeper = cluster.proxies[owner]
                sleeper.signal(signal.SIGSTOP)
                began = asyncio.get_running_loop().time()
                held = [
                    asyncio.create_task(proxies[owner].once("DELETE", kernel)),
                    asyncio.create_task(proxies[owner].once("POST", f"{kernel}/restart")),
                ]
                await free.wait_row(book.kernel_id, seconds=60)
                while (await free.row(book.kernel_id))["owner"] in (f"proxy-{owner}", None):  # noqa: ASYNC110 - another process decides it
                    await asyncio.sleep(0.1)
                sleeper.signal(signal.SIGCONT)
                answers = [status for status, _, _ in await asyncio.gather(*held)]
                row.seconds.append(asyncio.get_running_loop().time() - began)
                # An answer is allowed that says what the new owner did: this test asks it nothing.
                assert set(answers) <= {0, 412, 421, 503}, answers
                assert (await book.run("print(kept)")).text == "kept\n"
                row.note = f"answers {sorted(answers)}"
                await book.rest("DELETE", "")
