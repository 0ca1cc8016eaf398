"""Rows of the compute node: launcher killed, keeper killed, all of it gone, its disk full."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from e2e.test_full_log import Client, check_losses, check_the_kernel_lives, keeper_log, lose_output
from support.cluster import Cluster, JupyterServer
from support.matrix.gateway import Gateway
from support.matrix.ledger import TRIES, Ledger, Pace
from support.matrix.node import Node
from support.matrix.open_cell import under_way
from support.notebook import notebook
from support.small_disk import small_disk

pytestmark = pytest.mark.long

NOT_VISIBLE = 0.3
#: Outputs of a cell that is too large for the small disk.
MANY = 500


@pytest.mark.timeout(120 + 60 * min(TRIES, Pace.SECONDS.value))
async def test_launcher_killed_and_restarted(
    cluster: Cluster, server: JupyterServer, proxies: list[Gateway], ledger: Ledger
) -> None:
    fault = "launcher killed and restarted"
    stream = ledger.row(fault, "silence in the cell", Pace.SECONDS, bar=NOT_VISIBLE)
    calls = ledger.row(fault, "restart of a kernel, launcher still away", Pace.SECONDS)
    with stream as row, calls as lifecycle:
        async with notebook(server.url, server.token) as book:
            await book.run("import os; pid = os.getpid()")
            other = await proxies[0].start()
            for number in range(row.tries):
                async with under_way(book, row, number, cluster.base / "launcher-kill") as cell:
                    cell.mark()
                    await asyncio.to_thread(cluster.launcher.kill)
                    lifecycle.seconds.append((await proxies[1].restart(other)).seconds)
                    await cell.caught_up()
                    cluster.launcher.start()
                    await proxies[2].delete(await proxies[2].start())
                    await cell.caught_up()
                assert (await book.run("import os; print(pid == os.getpid())")).text == "True\n"
            await proxies[0].delete(other)
            await book.rest("DELETE", "")


@pytest.mark.timeout(120 + 40 * min(TRIES, Pace.SECONDS.value))
async def test_keeper_killed(cluster: Cluster, server: JupyterServer, ledger: Ledger) -> None:
    """From the kill to the output of the next cell, in the adopted kernel with its variables."""
    node = Node(cluster.base / "launcher")
    with ledger.row("keeper killed", "until the next cell's output", Pace.SECONDS, bar=2.0) as row:
        row.note = "the cell in flight is told"
        for number in range(row.tries):
            async with notebook(server.url, server.token) as book:
                await book.run("import os, time; kept = os.getpid()")
                gate = cluster.base / f"gate-{number}"
                flight = await book.execute(
                    "print('in flight')\n"
                    f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
                )
                await flight.wait_text("in flight")
                began = time.monotonic()
                before = node.kill_keeper(book.kernel_id)
                await flight.wait_done()
                following = await book.execute("print(kept == os.getpid())")
                gate.touch()  # the kernel itself is still in the cell that was told
                await following.wait_text("True\n")
                row.seconds.append(time.monotonic() - began)
                await following.wait_done()
                row.count(lost=0, doubled=following.text.count("True") - 1)
                assert flight.reply_content["status"] == "error"
                assert "was replaced" in flight.reply_content["evalue"]
                assert "holdfast: " in flight.stderr, "the gap is seen in the cell"
                assert node.keeper(book.kernel_id)["epoch"] != before["epoch"]
                await book.rest("DELETE", "")


@pytest.mark.timeout(120 + 90 * min(TRIES, Pace.LONG.value))
async def test_node_gone_and_back_empty(
    cluster: Cluster, server: JupyterServer, proxies: list[Gateway], ledger: Ledger
) -> None:
    """The node lost power and its launcher is started again: that is evidence, no grace passes."""
    node = Node(cluster.base / "launcher")
    fault = "node lost power, back without its kernels"
    with ledger.row(fault, "from the launcher's start to `dead`", Pace.LONG) as row:
        for _ in range(row.tries):
            async with notebook(server.url, server.token) as book:
                flight = await book.execute("print('on'); import time; time.sleep(600)")
                await flight.wait_text("on\n")
                await asyncio.to_thread(node.lose_power, cluster.launcher.pid)
                await asyncio.to_thread(cluster.launcher.wait, 10)
                began = time.monotonic()
                cluster.launcher.start()
                await flight.wait_done(90)
                row.seconds.append(time.monotonic() - began)
                await book.wait_status("dead")
                row.note = f"the cell says {flight.reply_content['evalue'][:90]!r}"
                assert flight.reply_content["status"] == "error"
                dead = await proxies[0].wait_row(book.kernel_id, state="dead")
                assert dead["reason"]
                assert "could not be reached" not in dead["reason"], "on evidence, not by the grace"
                status, body, _ = await proxies[0].once("GET", f"/api/kernels/{book.kernel_id}")
                assert status == 404 or body["execution_state"] == "dead", body
                assert node.processes(book.kernel_id) == []


@pytest.mark.timeout(120 + 90 * min(TRIES, Pace.LONG.value))
async def test_disk_full(tmp_path: Path, ledger: Ledger) -> None:
    """6 MiB of disk, and an absence of which the log would need 50: what is lost is said to the
    number, and the kernel lives."""
    with ledger.row("keeper's disk full", "client back until its cell ends", Pace.LONG) as row:
        base = tmp_path / "disk"
        cluster = Cluster(base, proxies=2, launcher_toml="log_memory_bytes = 65536\n")
        kernels = base / "launcher" / "kernels"
        kernels.mkdir(mode=0o700, parents=True)
        with small_disk(kernels, 6 * 1024 * 1024):
            try:
                await asyncio.to_thread(cluster.start)
                server = await asyncio.to_thread(cluster.jupyter)
                client = Client("shim", server.url, server.token, server, count=MANY)
                for _ in range(row.tries):
                    await lose_on_a_full_disk(cluster, client, kernels, row.seconds)
                row.note = "the gap is shown and counts what is missing"
            finally:
                await asyncio.to_thread(cluster.stop)


async def lose_on_a_full_disk(
    cluster: Cluster, client: Client, kernels: Path, seconds: list[float]
) -> None:
    async with client.open() as book:
        directory = kernels / book.kernel_id
        floor = keeper_log(directory)["floor"]

        def much_is_lost() -> bool:
            seconds_at[0] = time.monotonic()
            return keeper_log(directory)["floor"] > floor + MANY // 2

        seconds_at = [0.0]
        execution = await lose_output(cluster, client, book, much_is_lost)
        seconds.append(time.monotonic() - seconds_at[0])
        check_losses(execution, client.count, "the log's disk failed")
        await check_the_kernel_lives(book)
        await book.rest("DELETE", "")
