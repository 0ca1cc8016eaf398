"""One Chromium a session; one cluster, one JupyterLab server a module; one context a test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from support.lab.browser import VIEWPORT, chromium
from support.lab.server import LabServer, lab_cluster
from support.system import need_command

session = pytest_asyncio.fixture(scope="session", loop_scope="session")
module = pytest_asyncio.fixture(scope="module", loop_scope="session")
each = pytest_asyncio.fixture(loop_scope="session")


@session
async def browser() -> AsyncIterator[Browser]:
    async with chromium(need_command("chromium", package="chromium")) as running:
        yield running


@each
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser window without cookies or history."""
    made = await browser.new_context(viewport=VIEWPORT)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="session")
def fonts() -> None:
    """Let matplotlib list the fonts now: the first time it takes seconds and says so in a cell."""
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], check=True)


@module
async def server(tmp_path_factory: pytest.TempPathFactory, fonts: None) -> AsyncIterator[LabServer]:
    """JupyterLab with a cluster behind it."""
    cluster = lab_cluster(tmp_path_factory.mktemp("lab"))
    await asyncio.to_thread(cluster.start)
    made = LabServer(cluster)
    try:
        await made.open()
        yield made
    finally:
        await made.close()
        await asyncio.to_thread(cluster.stop)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a folder for the screenshots of one test, among the artefacts if there are any."""
    artefacts = os.environ.get("HOLDFAST_ARTEFACTS")
    base = Path(artefacts) / "lab" if artefacts else tmp_path_factory.mktemp("pictures")

    def folder(name: str) -> Path:
        made = base / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    return folder
