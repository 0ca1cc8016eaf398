"""One Chromium and one JupyterLab a session; one page for all tests that need no fresh one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from labextension.scripted_lab import ScriptedLab
from labextension.status_page import StatusPage
from support.lab.browser import VIEWPORT, chromium
from support.lab.page import LabPage
from support.system import need_command

session = pytest_asyncio.fixture(scope="session", loop_scope="session")
each = pytest_asyncio.fixture(loop_scope="session")


@asynccontextmanager
async def window(browser: Browser) -> AsyncIterator[BrowserContext]:
    made = await browser.new_context(viewport=VIEWPORT)
    try:
        yield made
    finally:
        await made.close()


@session
async def browser() -> AsyncIterator[Browser]:
    async with chromium(need_command("chromium", package="chromium")) as running:
        yield running


@session
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ScriptedLab]:
    made = ScriptedLab(tmp_path_factory.mktemp("scripted-lab"))
    try:
        await made.open()
        yield made
    finally:
        await made.close()


@session
async def shared(lab: ScriptedLab, browser: Browser) -> AsyncIterator[StatusPage]:
    """A page with one notebook open; loading it takes longer than any test with it."""
    lab.answer_streams()
    lab.write_notebook("shared.ipynb")
    async with window(browser) as context:
        yield StatusPage(lab, await LabPage.open(context, lab.page_url("tree/shared.ipynb")))


@each
async def page(shared: StatusPage) -> StatusPage:
    """The shared page, its notebook in front and connected, without popup and toast."""
    await shared.refresh()
    return shared


@each
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A window of one's own."""
    async with window(browser) as made:
        yield made


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for screenshots, among the artefacts if there are any."""
    artefacts = os.environ.get("HOLDFAST_ARTEFACTS")
    base = Path(artefacts) / "labextension" if artefacts else tmp_path_factory.mktemp("pictures")
    base.mkdir(parents=True, exist_ok=True)
    return base
