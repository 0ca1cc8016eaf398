"""How the demo runs a notebook: over a fake server whose kernels and websockets go away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast_proxy.cli.demo import browser as browser_module
from holdfast_proxy.cli.demo.browser import Browser, BrowserError, KernelLost, Tab
from holdfast_proxy.cli.demo.execution import Execution
from holdfast_proxy.cli.demo.notebook import NotebookCell, Role, build_cells
from holdfast_proxy.cli.demo.record import CellRecord
from holdfast_proxy.cli.demo.verdict import Kill
from support.demo_run import line_text
from support.fake_notebook_server import (
    TOKEN,
    FakeNotebookServer,
    fake_notebook_server,
    good_answer,
)

Send = Callable[[str, str, dict[str, Any]], Awaitable[None]]


@pytest.fixture
async def server() -> AsyncIterator[FakeNotebookServer]:
    async with fake_notebook_server() as server:
        yield server


@pytest.fixture
async def browser(server: FakeNotebookServer) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession() as http:
        yield Browser(http, server.url, TOKEN)


class Kernel:
    """Answers as the notebook's cells would, and notes in the side file what ran."""

    def __init__(self, side_file: Path, lines: int) -> None:
        self.side_file, self.lines = side_file, lines
        self.steps = 0
        self.before_line: Callable[[int, int], Awaitable[bool]] | None = None

    async def answer(self, code: str, send: Send) -> None:
        await send("iopub", "status", {"execution_state": "busy"})
        if code.startswith("estimate("):
            cell = int(code.removeprefix("estimate(").split(",")[0])
            with self.side_file.open("a") as side:
                side.write(f"{cell}\n")
            for line in range(1, self.lines + 1):
                if self.before_line is not None and not await self.before_line(cell, line):
                    return
                self.steps += 1
                text = {"name": "stdout", "text": line_text(cell, line)}
                await send("iopub", "stream", text)
        elif "steps in memory" in code:
            said = {"name": "stdout", "text": f"steps in memory: {self.steps}\n"}
            await send("iopub", "stream", said)
        await good_answer(code, send)


class Stage:
    """An execution over the fake server."""

    def __init__(self, server: FakeNotebookServer, browser: Browser, folder: Path) -> None:
        self.said: list[str] = []
        side_file = folder / "runs.txt"
        self.cells = build_cells(seconds=6, side_file=side_file)
        steps = [cell for cell in self.cells if cell.role is Role.STEPS]
        self.kernel = Kernel(side_file, steps[0].lines)
        server.answer = self.kernel.answer
        self.execution = Execution(
            self.cells,
            browser=browser,
            path="demo.ipynb",
            side_file=side_file,
            clock=time.monotonic,
            say=self.said.append,
            note=self.said.append,
        )


@pytest.fixture
async def stage(
    server: FakeNotebookServer, browser: Browser, tmp_path: Path
) -> AsyncIterator[Stage]:
    stage = Stage(server, browser, tmp_path)
    yield stage
    await stage.execution.close()


async def test_a_whole_run_is_counted_and_saved(stage: Stage, server: FakeNotebookServer) -> None:
    await stage.execution.open()
    await stage.execution.run()
    await stage.execution.save()
    began = stage.execution.began
    assert began is not None
    verdict = stage.execution.verdict([Kill(began, "a")], interrupted=False)
    assert verdict.complaints == ()
    assert verdict.expected == verdict.received == verdict.steps == 600
    assert [code.split("(")[0] for code in server.codes[1:3]] == ["estimate", "estimate"]
    saved = server.contents["demo.ipynb"]
    texts = [cell["outputs"][0]["text"] for cell in saved["cells"][2:]]
    assert texts[0].splitlines()[0] == line_text(1, 1).strip()
    assert texts[-1] == "steps in memory: 600\n"
    assert stage.said == ["cell 1 runs", "cell 2 runs"]


async def test_a_kernel_that_dies_costs_its_cell_and_another_one_goes_on(
    stage: Stage, server: FakeNotebookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(cell: int, line: int) -> bool:
        if (cell, line) == (1, 31) and len(server.kernels) == 1:
            await server.broadcast("status", {"execution_state": "dead"})
            stage.kernel.steps = 0
            server.refused_starts = 1
            return False
        return True

    monkeypatch.setattr("holdfast_proxy.cli.demo.execution._AGAIN", 0.01)
    stage.kernel.before_line = die
    await stage.execution.open()
    await stage.execution.run()
    verdict = stage.execution.verdict([Kill(1e12, "a")], interrupted=False)
    assert (verdict.kernels_lost, verdict.no_reply, verdict.lost) == (1, (1,), 270)
    assert (verdict.ran_once, verdict.not_run, verdict.steps) == (2, (), 300)
    assert [code for code in server.codes if "import random" in code] != []
    assert "cell 1 was lost: the kernel was reported dead" in stage.said


async def test_a_kernel_that_the_server_forgot_is_lost(
    server: FakeNotebookServer, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(code: str, send: Send) -> None:
        server.kernels.clear()

    monkeypatch.setattr(browser_module, "_LOOK", 0.05)
    server.answer = nothing
    kernel_id = await browser.open_session("demo.ipynb")
    async with Tab(browser, kernel_id, clock=time.monotonic) as tab:
        with pytest.raises(KernelLost, match="knows the kernel no more"):
            await tab.run(CellRecord(NotebookCell(role=Role.SETUP, source="1")))


async def test_a_kernel_that_lives_and_says_nothing_is_given_up(
    server: FakeNotebookServer, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(code: str, send: Send) -> None:
        return

    monkeypatch.setattr(browser_module, "_LOOK", 0.02)
    monkeypatch.setattr(browser_module, "PATIENCE", 0.2)
    server.answer = nothing
    kernel_id = await browser.open_session("demo.ipynb")
    async with Tab(browser, kernel_id, clock=time.monotonic) as tab:
        with pytest.raises(KernelLost, match=r"nothing came for 0.2 s"):
            await tab.run(CellRecord(NotebookCell(role=Role.SETUP, source="1")))


async def test_a_closed_websocket_is_opened_again_for_the_same_session(
    stage: Stage, server: FakeNotebookServer
) -> None:
    async def cut_once(cell: int, line: int) -> bool:
        if (cell, line) == (2, 10) and len(server.sockets) == 1:
            before = server.sockets[0]
            cutting = asyncio.create_task(server.cut())
            async with asyncio.timeout(10):
                while server.sockets[-1] is before:  # noqa: ASYNC110 - the other end decides
                    await asyncio.sleep(0.01)
            await cutting
        return True

    stage.kernel.before_line = cut_once
    await stage.execution.open()
    await stage.execution.run()
    verdict = stage.execution.verdict([Kill(1e12, "a")], interrupted=False)
    assert (verdict.reconnects, verdict.received, verdict.kernels_lost) == (1, 600, 0)


async def test_a_run_that_is_stopped_in_mid_cell_has_a_verdict(stage: Stage) -> None:
    reached = asyncio.Event()

    async def wait_there(cell: int, line: int) -> bool:
        if (cell, line) == (2, 20):
            reached.set()
            await asyncio.Event().wait()
        return True

    stage.kernel.before_line = wait_there
    await stage.execution.open()
    running = asyncio.create_task(stage.execution.run())
    await asyncio.wait_for(reached.wait(), 20)
    async with asyncio.timeout(10):
        while stage.execution.lines < 319:  # noqa: ASYNC110 - the other end decides
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    verdict = stage.execution.verdict([], interrupted=True)
    assert verdict.complaints == ()
    assert (verdict.cells, verdict.expected, verdict.received) == (2, 319, 319)


async def test_a_server_that_refuses_is_named(browser: Browser, server: FakeNotebookServer) -> None:
    server.refused_starts = 1
    with pytest.raises(BrowserError, match="POST /api/kernels was answered 503: no gateway"):
        await browser.start_kernel()


async def test_a_server_that_is_away_is_named(browser: Browser) -> None:
    away = Browser(browser.http, "http://127.0.0.1:9", TOKEN)
    with pytest.raises(BrowserError, match="POST /api/kernels: "):
        await away.start_kernel()
    assert await away.kernel_gone("x") is False
