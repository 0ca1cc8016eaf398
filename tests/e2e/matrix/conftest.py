"""One cluster for the whole matrix, mended after each fault, and the ledger of the run."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.cluster import MODE, Cluster, JupyterServer
from support.matrix.gateway import Gateway, gateways
from support.matrix.ledger import Ledger

_ledger = Ledger(MODE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, and the file when HOLDFAST_ARTEFACTS says where."""
    if not _ledger.rows:
        return
    terminalreporter.section(f"fault matrix, {_ledger.mode}")
    terminalreporter.write_line(_ledger.table())
    folder = os.environ.get("HOLDFAST_ARTEFACTS")
    if folder:
        terminalreporter.write_line(f"written to {_ledger.write(Path(folder))}")


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    return _ledger


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = tmp_path_factory.mktemp("matrix")
    cluster = Cluster(base, proxies=3, etcd_members=3).start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def server(_cluster: Cluster) -> JupyterServer:
    """The notebook server; shims know all proxies, and no fault of the matrix is its own."""
    return _cluster.jupyter()


@pytest.fixture
async def cluster(_cluster: Cluster) -> AsyncIterator[Cluster]:
    """Three proxies, three etcd members, a launcher: whole before and after each test."""
    await asyncio.to_thread(heal, _cluster)
    yield _cluster
    await asyncio.to_thread(heal, _cluster)


@pytest.fixture
async def proxies(cluster: Cluster) -> AsyncIterator[list[Gateway]]:
    """Each proxy's REST."""
    async with gateways(cluster.proxy_urls, cluster.token) as made:
        yield made


def heal(cluster: Cluster) -> None:
    """Thaw what is frozen, start what is down, and wait until all is in order."""
    for process in [*cluster.proxies, *cluster.launchers, *cluster.etcds]:
        if process.alive:
            process.signal(signal.SIGCONT)
    cluster.start_etcd()
    for process in [*cluster.proxies, *cluster.launchers]:
        if not process.alive:
            process.start()
    for n in range(len(cluster.proxies)):
        cluster.wait_proxy(n, kernelspecs=True)
