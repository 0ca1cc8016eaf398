"""Fixtures of the edge's tests: uvloop, as in production, and a fresh fake cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from support.fake_cluster import FakeCluster


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def cluster() -> FakeCluster:
    return FakeCluster()
