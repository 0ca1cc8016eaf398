"""One Chromium a session; for each test an edge with a story behind it, and a window."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from support.cluster_page import Site, Window, serve_story, window
from support.lab.browser import chromium
from support.system import need_command


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium(need_command("chromium", package="chromium")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def site() -> AsyncIterator[Site]:
    async with serve_story() as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def opened(browser: Browser, site: Site) -> AsyncIterator[Window]:
    """A laptop's window, signed in and live."""
    async with window(browser, site.url) as made:
        await made.sign_in()
        await made.live()
        yield made


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: among the artefacts, if there are any."""
    artefacts = os.environ.get("HOLDFAST_ARTEFACTS")
    folder = Path(artefacts) / "page" if artefacts else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
