"""The page on a real edge, with a cluster behind it that plays a story."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from holdfast_proxy.config import ProxyConfig, Secret
from support.edge_server import TOKEN, EdgeServer, serve_edge
from support.fake_cluster import FakeCluster
from support.scripted_cluster import LiveClock, quiet_day

CONFIG = ProxyConfig(
    token=Secret(TOKEN), single_user=True, cluster_key=Secret("cluster-key"), cluster="research"
)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def story() -> FakeCluster:
    """Three proxies, of which ``proxy-1`` is this one, and six kernels."""
    cluster = FakeCluster("proxy-1")
    cluster.admin = LiveClock()
    cluster.admin.view = quiet_day()
    return cluster


@pytest.fixture
async def edge(story: FakeCluster) -> AsyncIterator[EdgeServer]:
    """Its edge, with one user, ``TOKEN``."""
    async with serve_edge(story, config=CONFIG) as server:
        yield server
