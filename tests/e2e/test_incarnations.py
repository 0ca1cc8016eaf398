"""A kernel that restarts, asked or by a crash, with requests in flight."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from support.cluster import Cluster, JupyterServer
from support.notebook import Execution, Notebook, notebook

pytestmark = pytest.mark.e2e


async def with_requests_in_flight(book: Notebook) -> tuple[Execution, list[Execution], str]:
    """A running cell, and four behind it that append to a file."""
    await book.run("import os, signal, time; where = os.getcwd()")
    running = await book.execute("print('running'); time.sleep(600)")
    await running.wait_text("running")
    queued = [
        await book.execute(f"open('old-cells', 'a').write('{n}'); print('old', {n})")
        for n in range(4)
    ]
    return running, queued, "open('old-cells').read() if os.path.exists('old-cells') else ''"


async def check_after(book: Notebook, queued: list[Execution], old: str) -> None:
    """Each was answered, none ran, and the first output of the new kernel is there."""
    for execution in queued:
        await execution.wait_for(lambda e=execution: e.reply is not None)
        assert execution.reply_content["status"] in ("error", "aborted")
        assert execution.text == ""
    first = await book.run(f"print('new'); import os; print({old})")
    assert first.text.split() == ["new"]
    assert first.reply_content["execution_count"] == 1


async def test_asked_restart(cluster: Cluster, server: JupyterServer) -> None:
    async with notebook(server.url, server.token) as book:
        running, queued, old = await with_requests_in_flight(book)
        status, model = await book.rest("POST", "/restart")
        assert (status, model["id"]) == (200, book.kernel_id)
        await running.wait_for(lambda: running.reply is not None)
        assert running.reply_content["status"] == "error"
        await check_after(book, queued, old)
        await book.rest("DELETE", "")


async def test_crash(cluster: Cluster, server: JupyterServer) -> None:
    async with notebook(server.url, server.token) as book:
        await book.run("import os; pid = os.getpid(); print(pid)")
        (pid,) = (e.text for e in list(book.executions.values()) if e.text)
        running, queued, old = await with_requests_in_flight(book)
        os.kill(int(pid), signal.SIGKILL)
        await running.wait_for(lambda: running.reply is not None)
        assert running.reply_content["status"] == "error"
        await check_after(book, queued, old)
        await book.rest("DELETE", "")


async def test_a_kernel_that_keeps_dying_is_dead_and_says_why(
    cluster: Cluster, server: JupyterServer
) -> None:
    async with notebook(server.url, server.token) as book:
        for _ in range(12):
            cell = await book.execute("import os; os.kill(os.getpid(), 9)")
            done = asyncio.create_task(cell.wait_done())
            closed = asyncio.create_task(book.closed.wait())
            await asyncio.wait({done, closed}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
            done.cancel()
            closed.cancel()
            if "dead" in book.states() or book.closed.is_set():
                break
        assert "dead" in book.states()
