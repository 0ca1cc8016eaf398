"""The notebook server itself killed and stopped, while a cell runs, and started again.

The cluster stays. The notebook does what a browser tab does: it comes back to the same port with
the same session id. What it must find: its kernel and its variables, the row of its document in
``/api/sessions``, every line of its cell, one reply and idle. Doubles may come only in the last
batch that it had not proven to have (the browser's leg is at least once).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.cluster import Cluster, JupyterServer
from support.figures import report
from support.notebook import Execution, Notebook, notebook
from support.printer import PrinterCell
from support.processes import wait_until

#: A server's start takes seconds, and each test has one or more: `make promises`.
pytestmark = [pytest.mark.e2e, pytest.mark.long]

TRIES = int(os.environ.get("HOLDFAST_TRIES", "1"))
INTERVAL = 0.01
#: Lines that a cell prints in the time until its proof has come and been acknowledged (55 ms),
#: with room for a machine that is busy: what may come twice after a kill.
UNPROVEN = 100


async def rest(server: JupyterServer, method: str, path: str, body: Any = None) -> Any:
    headers = {"Authorization": f"token {server.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.request(method, f"{server.url}{path}", json=body) as response,
    ):
        text = await response.text()
        assert response.status < 300, f"{method} {path}: {response.status} {text}"
        return json.loads(text) if text else None


async def new_session(server: JupyterServer, path: str) -> dict[str, Any]:
    """What JupyterLab does when a notebook is opened."""
    body = {"path": path, "name": "", "type": "notebook", "kernel": {"name": "python3"}}
    session: dict[str, Any] = await rest(server, "POST", "/api/sessions", body)
    return session


async def lists(server: JupyterServer) -> tuple[Any, Any]:
    """(sessions, kernels) without what changes by itself."""
    sessions = await rest(server, "GET", "/api/sessions")
    kernels = await rest(server, "GET", "/api/kernels")
    for model in [*kernels, *(session["kernel"] for session in sessions)]:
        for name in ("last_activity", "connections", "execution_state"):
            model.pop(name, None)
    by_id = lambda model: str(model["id"])  # noqa: E731 - a key, used twice
    return sorted(sessions, key=by_id), sorted(kernels, key=by_id)


async def come_back(book: Notebook, server: JupyterServer, seconds: float = 30) -> None:
    """As a browser: try until the server is there again."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                await book.connect()
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
                continue
            return


def check_at_least_once(cell: PrinterCell, execution: Execution) -> int:
    """Complete and in order but for one repeated stretch; ran once. The number of doubles."""
    numbers = [int(line.split(":")[1]) for line in execution.text.splitlines()]
    doubled = len(numbers) - cell.lines
    assert sorted(set(numbers)) == list(range(cell.lines)), "a line is missing"
    backward = [n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1]
    assert len(backward) <= 1, f"out of order at {backward}"
    assert doubled <= UNPROVEN, f"{doubled} lines came twice"
    assert execution.reply_content["status"] == "ok"
    assert execution.stderr == ""
    assert cell.side_file.read_text().split().count(str(cell.number)) == 1
    return doubled


def keeper_pid(cluster: Cluster, kernel_id: str) -> int:
    path = cluster.base / "launcher" / "kernels" / kernel_id / "keeper.json"
    return int(json.loads(path.read_text())["pid"])


def state_files(server: JupyterServer) -> list[Path]:
    return sorted((server.data_dir / "holdfast" / "servers").glob("*.json"))


@pytest.mark.timeout(120 + 60 * TRIES)
async def test_killed_in_mid_cell_and_restarted(cluster: Cluster, server: JupyterServer) -> None:
    session = await new_session(server, "Untitled.ipynb")
    other = await new_session(server, "folder/other.ipynb")
    doubles, silences = [], []
    kernel_id = session["kernel"]["id"]
    async with notebook(server.url, server.token, kernel_id=kernel_id) as book:
        await book.run("kept = 'kept'")
        (file,) = state_files(server)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        before = await lists(server)
        assert {s["id"] for s in before[0]} == {session["id"], other["id"]}
        for number in range(TRIES):
            cell = PrinterCell(number, 250, cluster.base / "restart.side", interval=INTERVAL)
            execution = await book.execute(cell.code)
            await execution.wait_text(f"{number}:60\n")
            killed = await asyncio.to_thread(server.process.kill)
            await book.closed.wait()
            await asyncio.to_thread(server.start)
            assert await lists(server) == before
            await come_back(book, server)
            await execution.wait_done()
            doubles.append(check_at_least_once(cell, execution))
            silences.append(execution.longest_silence(killed))
            assert (await book.run("print(kept)")).text == "kept\n"
    report("notebook server SIGKILL in mid-cell", silences, doubled=sum(doubles))
    assert "belong to this server again" in server.process.log.read_text()
    for one in (session, other):
        await rest(server, "DELETE", f"/api/sessions/{one['id']}")
    assert await lists(server) == ([], [])


async def test_a_cell_that_ends_while_the_server_is_away_is_shown(
    cluster: Cluster, server: JupyterServer
) -> None:
    """Also: cells that were queued behind it, and no answer comes twice."""
    async with notebook(server.url, server.token) as book:
        cell = PrinterCell(100, 80, cluster.base / "away.side", interval=INTERVAL)
        execution = await book.execute(cell.code)
        queued = [await book.execute(f"print('queued', {n})") for n in range(3)]
        await execution.wait_text("100:20\n")
        await asyncio.to_thread(server.process.kill)
        await asyncio.to_thread(
            wait_until, lambda: cell.progress() >= cell.lines, seconds=20, what="the cell's end"
        )
        await asyncio.to_thread(server.start)
        await come_back(book, server)
        await execution.wait_done()
        check_at_least_once(cell, execution)
        for n, one in enumerate(queued):
            await one.wait_done()
            assert one.text == f"queued {n}\n"
        assert (await book.run("print('and on')")).text == "and on\n"
        await book.rest("DELETE", "")


async def test_stopped_and_started_again(cluster: Cluster, server: JupyterServer) -> None:
    """SIGTERM ends no kernel and says which stay; the next run has them and its sessions."""
    session = await new_session(server, "stopped.ipynb")
    kernel_id = session["kernel"]["id"]
    async with notebook(server.url, server.token, kernel_id=kernel_id) as book:
        cell = PrinterCell(200, 150, cluster.base / "stopped.side", interval=INTERVAL)
        execution = await book.execute(cell.code)
        await execution.wait_text("200:50\n")
        before = await lists(server)
        server.process.signal(signal.SIGTERM)
        await asyncio.to_thread(server.process.wait, 20)
        said = server.process.log.read_text()
        assert f"these kernels stay: {kernel_id}" in said
        assert "to end one" in said
        await asyncio.to_thread(server.start)
        assert await lists(server) == before
        await come_back(book, server)
        await execution.wait_done()
        check_at_least_once(cell, execution)
        await rest(server, "DELETE", f"/api/sessions/{session['id']}")


async def test_a_kernel_that_ended_meanwhile_is_dropped(
    cluster: Cluster, server: JupyterServer
) -> None:
    """On the gateway's 404, and its session with it; the others stay."""
    ended, kept = await new_session(server, "ended.ipynb"), await new_session(server, "kept.ipynb")
    ended_id, kept_id = ended["kernel"]["id"], kept["kernel"]["id"]
    await asyncio.to_thread(server.process.kill)
    headers = {"Authorization": f"token {cluster.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.delete(f"{cluster.proxy_urls[0]}/api/kernels/{ended_id}") as response,
    ):
        assert response.status == 204
    await asyncio.to_thread(server.start)
    sessions, kernels = await lists(server)
    assert [s["id"] for s in sessions] == [kept["id"]]
    assert [k["id"] for k in kernels] == [kept_id]
    await rest(server, "DELETE", f"/api/sessions/{kept['id']}")


async def test_restarted_while_every_proxy_is_away(cluster: Cluster, server: JupyterServer) -> None:
    """Nobody can be asked: nothing is forgotten. What was typed meanwhile and not sent says so."""
    session = await new_session(server, "outage.ipynb")
    kernel_id = session["kernel"]["id"]
    async with notebook(server.url, server.token, kernel_id=kernel_id) as book:
        cell = PrinterCell(300, 100, cluster.base / "outage.side", interval=INTERVAL)
        execution = await book.execute(cell.code)
        await execution.wait_text("300:20\n")
        for proxy in cluster.proxies:
            proxy.kill()
        unsent = await book.execute("print('never sent')")
        (file,) = state_files(server)
        await asyncio.to_thread(
            wait_until, lambda: unsent.msg_id in file.read_text(), seconds=10, what="its note"
        )
        await asyncio.to_thread(server.process.kill)
        await asyncio.to_thread(server.start, gateway=False)
        await come_back(book, server)
        (row,) = await rest(server, "GET", "/api/sessions")
        assert (row["id"], row["kernel"]["id"]) == (session["id"], kernel_id)
        for n in range(len(cluster.proxies)):
            await asyncio.to_thread(cluster.start_proxy, n)
        await execution.wait_done()
        check_at_least_once(cell, execution)
        await unsent.wait_done()
        assert unsent.reply_content["status"] == "error"
        assert "not sent: the notebook server was restarted" in unsent.stderr
        assert (await book.run("print('sent')")).text == "sent\n"
        await rest(server, "DELETE", f"/api/sessions/{session['id']}")


async def test_keeper_replaced_while_the_server_is_away(
    cluster: Cluster, server: JupyterServer
) -> None:
    """Its log is another one: the cell that ran is closed with words, and the kernel lives on."""
    async with notebook(server.url, server.token) as book:
        await book.run("kept = 'kept'")
        cell = await book.execute("import time\nprint('in')\ntime.sleep(6)")
        await cell.wait_text("in\n")
        (file,) = state_files(server)
        await asyncio.to_thread(
            wait_until, lambda: cell.msg_id in file.read_text(), seconds=10, what="its note"
        )
        await asyncio.to_thread(server.process.kill)
        keeper = keeper_pid(cluster, book.kernel_id)
        os.kill(keeper, signal.SIGKILL)
        await asyncio.to_thread(
            wait_until, lambda: keeper_pid(cluster, book.kernel_id) != keeper, seconds=30,
            what="another keeper",
        )  # fmt: skip
        await asyncio.to_thread(server.start)
        await come_back(book, server)
        await cell.wait_done()
        assert cell.reply_content["ename"] == "HoldfastError"
        assert "what watches over the kernel was replaced" in cell.stderr
        assert (await book.run("print(kept)")).text == "kept\n"
        await book.rest("DELETE", "")
