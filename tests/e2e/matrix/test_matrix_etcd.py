"""Rows of etcd: a member killed or frozen, all of it away, its leader killed with the owner."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from support.cluster import Cluster, JupyterServer
from support.matrix.gateway import Gateway
from support.matrix.ledger import TRIES, Ledger, Pace
from support.matrix.open_cell import under_way
from support.notebook import Notebook, notebook
from support.processes import ManagedProcess

pytestmark = pytest.mark.long

#: Seconds that all of etcd is away: 120 by hand, few in CI.
OUTAGE = float(os.environ.get("HOLDFAST_OUTAGE", "6"))
#: What a user takes for no pause at all; a carrying proxy's end has 300 ms.
NOT_VISIBLE = 0.3


@pytest.mark.timeout(120 + 60 * min(TRIES, Pace.SECONDS.value))
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_one_etcd_member_away(
    cluster: Cluster,
    server: JupyterServer,
    proxies: list[Gateway],
    ledger: Ledger,
    how: signal.Signals,
) -> None:
    """In turn the leader and the next one after it. Kernels start and end meanwhile."""
    fault = f"one etcd member of three {'killed' if how is signal.SIGKILL else 'frozen'}"
    stream = ledger.row(fault, "silence in the cell", Pace.SECONDS, bar=NOT_VISIBLE)
    calls = ledger.row(fault, "start and delete of a kernel", Pace.SECONDS)
    with stream as row, calls as lifecycle:
        async with notebook(server.url, server.token) as book:
            await book.run("pass")
            for number in range(row.tries):
                leader = await asyncio.to_thread(cluster.etcd_leader)
                victim = cluster.etcds[(leader + number % 2) % 3]
                async with under_way(book, row, number, cluster.base / fault) as cell:
                    began = cell.mark()
                    victim.signal(how)
                    await proxies[number % 3].delete(await proxies[number % 3].start())
                    lifecycle.seconds.append(time.monotonic() - began)
                    await cell.caught_up()
                await asyncio.to_thread(bring_back, cluster, victim)
            await book.rest("DELETE", "")


def bring_back(cluster: Cluster, member: ManagedProcess) -> None:
    member.signal(signal.SIGCONT) if member.alive else member.start()
    cluster.start_etcd()


@pytest.mark.timeout(240 + 4 * OUTAGE * min(TRIES, Pace.LONG.value))
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_all_of_etcd_away_and_a_proxy_killed_meanwhile(
    cluster: Cluster,
    server: JupyterServer,
    proxies: list[Gateway],
    ledger: Ledger,
    how: signal.Signals,
) -> None:
    """The stream moves, lists are whole, interrupts pass, a start is told when to come again."""
    fault = f"all etcd {'killed' if how is signal.SIGKILL else 'frozen'} for {OUTAGE:g} s"
    stream = ledger.row(
        f"{fault}, a proxy killed meanwhile", "silence in the cell", Pace.LONG, bar=NOT_VISIBLE
    )
    calls = ledger.row(fault, "start of a kernel, after etcd is back", Pace.LONG, bar=15.0)
    with stream as row, calls as after:
        address = (server.url, server.token)
        async with notebook(*address) as neighbour, notebook(*address) as book:
            await book.run("pass")
            for number in range(row.tries):
                carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)
                free = proxies[(carrier + 1) % 3]
                folder = cluster.base / f"all-{how.name}"
                async with under_way(book, row, number, folder, interval=0.02) as cell:
                    for member in cluster.etcds:
                        member.signal(how)
                    await cell.goes_on(OUTAGE / 2)
                    cell.mark()
                    cluster.proxies[carrier].kill()
                    await cell.caught_up()
                    await check_without_etcd(free, book)
                    await check_interrupt(neighbour)
                    await cell.goes_on(OUTAGE / 2)
                    ended = time.monotonic()
                    for member in cluster.etcds:
                        bring_back_only(member)
                    kernel = await free.start()
                    after.seconds.append(time.monotonic() - ended)
                await free.delete(kernel)
                await asyncio.to_thread(cluster.start_proxy, carrier)
            await book.rest("DELETE", "")
            await neighbour.rest("DELETE", "")


def bring_back_only(member: ManagedProcess) -> None:
    """Without waiting for it: how soon calls work again is what is measured."""
    member.signal(signal.SIGCONT) if member.alive else member.start()


async def check_without_etcd(free: Gateway, book: Notebook) -> None:
    """No partial truth: the whole list or 503, a start 503 with Retry-After, interrupts at once."""
    status, models, after = await free.once("GET", "/api/kernels")
    if status == 200:
        assert book.kernel_id in [model["id"] for model in models]
    else:
        assert (status, after is not None) == (503, True), models
    async with asyncio.timeout(40):
        status, body, after = await free.once("POST", "/api/kernels", json={})
    assert status == 503, body
    assert after is not None, "503 says when to come again"
    status, body, after = await free.once("DELETE", f"/api/kernels/{book.kernel_id}")
    assert status == 503, body
    assert after is not None


async def check_interrupt(neighbour: Notebook) -> None:
    """A hanging cell of another notebook is stopped; that needs no owner and no etcd."""
    hanging = await neighbour.execute("print('hangs'); import time; time.sleep(600)")
    await hanging.wait_text("hangs\n")
    status, answer = await neighbour.rest("POST", "/interrupt")
    assert status == 204, answer
    assert (await hanging.wait_done()).reply_content["ename"] == "KeyboardInterrupt"


@pytest.mark.timeout(180 + 60 * min(TRIES, Pace.SECONDS.value))
async def test_owner_and_etcd_leader_killed_together(
    cluster: Cluster, server: JupyterServer, proxies: list[Gateway], ledger: Ledger
) -> None:
    """A new etcd leader extends every lease, so the dead owner's lasts longer than its time."""
    fault = "owner and etcd leader killed together"
    stream = ledger.row(fault, "silence in the cell", Pace.SECONDS, bar=NOT_VISIBLE)
    calls = ledger.row(fault, "delete of a kernel it owned", Pace.SECONDS, bar=15.0)
    with stream as row, calls as lifecycle:
        async with notebook(server.url, server.token) as book:
            await book.run("pass")
            for number in range(row.tries):
                other = await proxies[0].start()
                owner = int((await proxies[0].row(other))["owner"].removeprefix("proxy-"))
                leader = await asyncio.to_thread(cluster.etcd_leader)
                async with under_way(book, row, number, cluster.base / "together") as cell:
                    began = cell.mark()
                    cluster.proxies[owner].signal(signal.SIGKILL)
                    cluster.etcds[leader].signal(signal.SIGKILL)
                    await proxies[(owner + 1) % 3].delete(other)
                    lifecycle.seconds.append(time.monotonic() - began)
                    await cell.caught_up()
                for killed in (cluster.proxies[owner], cluster.etcds[leader]):
                    await asyncio.to_thread(killed.wait, 10)
                    killed.start()
                await asyncio.to_thread(cluster.start_etcd)
                await asyncio.to_thread(cluster.wait_proxy, owner)
            await book.rest("DELETE", "")
