"""Real etcd, one member and three, for the tests of what goes wrong."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore
from support.etcd_server import EtcdCluster

#: Elections within half a second, and lease times of a second, on one machine.
QUICK = ("--heartbeat-interval=50", "--election-timeout=500")


@pytest.fixture
def prefix() -> str:
    return f"/test/{uuid.uuid4().hex}/"


@pytest.fixture(scope="session")
def _single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("single"), arguments=QUICK) as etcd:
        yield etcd


@pytest.fixture
def single(_single: EtcdCluster) -> EtcdCluster:
    """One member, healthy, whatever the test before did to it."""
    _heal(_single)
    return _single


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Three healthy members, new for each test.

    Not shared: etcd 3.5.0 to 3.5.2 may come back from SIGKILL under load with data that differs
    from its peers' (etcd issue 13766). Seen here: after the tests that kill members, one member
    was 277 revisions behind for good and led the cluster, which no client can mend.
    """
    with EtcdCluster(tmp_path / "three", members=3, arguments=QUICK) as etcd:
        etcd.wait_ready()
        yield etcd


def _heal(etcd: EtcdCluster) -> None:
    for member in etcd.members:
        if member.running:
            member.thaw()
    etcd.start()
    etcd.wait_ready()


@pytest.fixture
async def store(single: EtcdCluster) -> AsyncIterator[EtcdStore]:
    async with EtcdStore(EtcdConfig(endpoints=single.endpoints)) as opened:
        yield opened


async def healthy(etcd: EtcdCluster) -> None:
    """All running members serve."""
    await asyncio.to_thread(etcd.wait_ready)
