"""A cluster, an HAProxy in front of it and a Node front end for each test that wants one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.front_end import FrontEnd, front_end
from support.haproxy import HAProxy

#: Browsers can put the token nowhere but in a websocket's URL.
QUERY = "allow_token_in_query = true"

Opener = Callable[..., AbstractAsyncContextManager[FrontEnd]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), proxy_toml=QUERY).start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def balancer(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    balancer = HAProxy(tmp_path_factory.mktemp("ha"), cluster.proxy_urls)
    try:
        yield balancer.start()
    finally:
        balancer.stop()


@pytest.fixture
async def whole(cluster: Cluster, balancer: HAProxy) -> AsyncIterator[None]:
    """All proxies are there before and after a test, whatever it did to them."""
    yield
    for n, proxy in enumerate(cluster.proxies):
        if not proxy.alive:
            await asyncio.to_thread(cluster.start_proxy, n)
    await asyncio.to_thread(balancer.wait_states, "UP", "UP")


@pytest.fixture
def opened(cluster: Cluster, balancer: HAProxy, whole: None, tmp_path: Path) -> Opener:
    """``async with opened() as end``: a front end with a kernel of its own, by HAProxy."""

    @asynccontextmanager
    async def opener(
        *, url: str | None = None, in_query: bool = False, legacy: bool = False
    ) -> AsyncIterator[FrontEnd]:
        async with front_end(tmp_path / "node.log") as end:
            await end.do(
                "start",
                url=url or balancer.url,
                token=cluster.token,
                inQuery=in_query,
                legacy=legacy,
            )
            await end.wait_connected()
            yield end
            await end.attempt("shutdown")

    return opener
