"""Both twins of the store behind one fixture."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from contracts.twins import EtcdTwin, MemoryTwin, Twin
from holdfast_proxy.store.contract import Store
from support.etcd_server import EtcdCluster


@pytest.fixture(scope="session")
def contract_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    # Short elections, because etcd's least lease time is one and a half of them.
    arguments = ("--heartbeat-interval=50", "--election-timeout=500")
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), arguments=arguments) as etcd:
        etcd.wait_ready()
        yield etcd


@pytest.fixture(params=["memory", "etcd"])
def twin(request: pytest.FixtureRequest) -> Twin:
    if request.param == "memory":
        return MemoryTwin()
    return EtcdTwin(request.getfixturevalue("contract_etcd"))


@pytest.fixture
async def store(twin: Twin) -> AsyncIterator[Store]:
    async with twin.open() as opened:
        yield opened


@pytest.fixture
async def other(twin: Twin) -> AsyncIterator[Store]:
    """A second client."""
    async with twin.open() as opened:
        yield opened


@pytest.fixture
def prefix() -> str:
    return f"/test/{uuid.uuid4().hex}/"
