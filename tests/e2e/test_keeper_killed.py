"""A keeper dies: its kernel and the user's variables do not, and the cell in flight is told."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from support.cluster import Cluster, JupyterServer
from support.notebook import notebook

pytestmark = pytest.mark.e2e


def keeper_file(cluster: Cluster, kernel_id: str) -> dict[str, object]:
    path = cluster.base / "launcher" / "kernels" / kernel_id / "keeper.json"
    return dict(json.loads(path.read_text()))


def kill_keeper(cluster: Cluster, kernel_id: str) -> dict[str, object]:
    """kill -9; answers what it had said of itself."""
    file = keeper_file(cluster, kernel_id)
    psutil.Process(int(str(file["pid"]))).kill()
    return file


async def test_kill_9_of_the_keeper_in_mid_cell(
    cluster: Cluster, server: JupyterServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with notebook(server.url, server.token) as book:
        await book.run("import os, time; precious = 41; print(os.getpid())")
        flight = await book.execute(
            f"print('in flight')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)\n"
            "precious += 1"
        )
        await flight.wait_text("in flight")
        before = kill_keeper(cluster, book.kernel_id)
        await flight.wait_done()
        assert flight.reply_content["status"] == "error"
        assert "what watches over the kernel was replaced" in flight.reply_content["evalue"]
        assert "it may still run" in flight.reply_content["evalue"]
        # Sent while the old cell still runs; it waits in the kernel, as a cell should.
        following = await book.execute("print(precious, os.getpid())")
        gate.touch()
        await following.wait_done()
        (pid,) = (e.text for e in list(book.executions.values())[:1])
        assert following.text == f"42 {pid}", "the same process, its variables, the cell's work"
        assert not book.closed.is_set(), "the notebook never lost its connection"
        after = keeper_file(cluster, book.kernel_id)
        assert after["epoch"] != before["epoch"]
        assert after["kernel"] == before["kernel"]
        status, _ = await book.rest("POST", "/restart")
        assert status == 200
        assert (await book.run("print('precious' in dir())")).text == "False\n"
        status, _ = await book.rest("DELETE", "")
        assert status == 204


async def test_kill_9_of_the_keeper_between_cells(cluster: Cluster, server: JupyterServer) -> None:
    """Up to the takeovers that are allowed: each cell is answered once, and the variables stay."""
    async with notebook(server.url, server.token) as book:
        await book.run("count = 0")
        for number in range(1, 4):
            kill_keeper(cluster, book.kernel_id)
            cell = await book.run("count += 1; print(count)")
            if cell.reply_content["status"] == "ok":
                assert cell.text == f"{number}\n"
                continue
            # Its keeper died before it confirmed the cell.
            assert "was replaced" in cell.reply_content["evalue"]
            await book.run(f"count = {number}")
        assert (await book.run("print(count)")).text == "3\n"
        await book.rest("DELETE", "")
