"""The launcher's process, ended with everything of its after each test."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launcher_process import LauncherProcess


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LauncherProcess]:
    """Running, with the small keeper; one for all tests, each with kernels of its own."""
    process = LauncherProcess(tmp_path_factory.mktemp("launcher"))
    try:
        process.start()
        yield process
    finally:
        asyncio.run(process.end())


@pytest.fixture
async def own_launcher(tmp_path: Path) -> AsyncIterator[LauncherProcess]:
    """Not started yet: the test changes its settings, kills it, starts it again."""
    process = LauncherProcess(tmp_path)
    try:
        yield process
    finally:
        await process.end()
