"""Several proxies' clusters on one store, each behind a real edge, with a fake launcher.

Everything is in one process on loopback. A proxy is "killed" by closing its port and abandoning
its tasks, "paused" by moving its clock while its link to the store is cut.
"""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from holdfast_protocol.keys import Keys
from holdfast_proxy.cluster import LifecycleCall, StartRequest
from holdfast_proxy.config import Mode, ProxyConfig, Secret
from holdfast_proxy.edge.app import build_app
from holdfast_proxy.ownership.active import ActiveCluster
from holdfast_proxy.ownership.assembly import assemble
from holdfast_proxy.ownership.clock import Clock, boottime
from holdfast_proxy.store.contract import Store
from holdfast_proxy.store.memory import Link, MemoryServer, MemoryStore
from support.fake_launcher import FakeKeeper, FakeLauncher

USER = "ada"
JOIN = "join-token"


@dataclass
class MovedClock:
    """Real time plus ``ahead`` seconds."""

    ahead: float = 0.0

    def clock(self) -> Clock:
        return Clock(now=lambda: boottime() + self.ahead, wall=lambda: time.time() + self.ahead)


@dataclass
class Proxy:
    """One proxy under test."""

    cluster: ActiveCluster
    store: Store
    port: int
    moved: MovedClock
    config: ProxyConfig
    runner: web.AppRunner | None = None

    @property
    def parts(self) -> Any:
        return self.cluster._parts

    @property
    def link(self) -> MemoryStore:
        assert isinstance(self.store, MemoryStore)
        return self.store

    def token(self, kernel_id: str) -> Any:
        return self.parts.ownership.token(kernel_id)

    async def close_port(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def kill(self) -> None:
        """As SIGKILL: nothing is released, the port refuses, the lease stands until it ends."""
        await self.close_port()
        await self.cluster.close()

    def pause(self, server: MemoryServer, seconds: float = 30.0) -> None:
        """As SIGSTOP: no keepalive gets through and its lease ends meanwhile."""
        self.link.link = Link.REFUSED
        server.revoke(self.parts.member._lease.lease_id)
        self.moved.ahead += seconds

    def wake(self) -> None:
        self.link.link = Link.UP


@dataclass
class Site:
    """What a test has."""

    new_store: Callable[[], Store]
    server: MemoryServer | None = None
    proxies: list[Proxy] = field(default_factory=list)
    launchers: list[FakeLauncher] = field(default_factory=list)
    lease_ttl: float = 5.0
    takeover_wait: float = 15.0
    node_grace: float = 600.0
    mode: Mode = Mode.ACTIVE_ACTIVE
    #: Unique per site, so that several tests share one real etcd.
    name: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:8]}")

    @property
    def keys(self) -> Keys:
        return Keys(self.name)

    async def proxy(
        self, proxy_id: str, *, port: int = 0, started: bool = True, store: Store | None = None
    ) -> Proxy:
        listening = socket.create_server(("127.0.0.1", port))
        port = listening.getsockname()[1]
        config = ProxyConfig(
            proxy_id=proxy_id,
            cluster=self.name,
            token=Secret("client-token"),
            user=USER,
            cluster_key=Secret("cluster-key"),
            join_token=Secret(JOIN),
            lease_ttl=self.lease_ttl,
            takeover_wait=self.takeover_wait,
            node_grace=self.node_grace,
            mode=self.mode,
        ).bound(port)
        moved, store = MovedClock(), store or self.new_store()
        cluster = assemble(config, proxy_url=config.url, store=store, clock=moved.clock())
        runner = web.AppRunner(build_app(cluster, config), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        proxy = Proxy(cluster, store, port, moved, config, runner)
        self.proxies.append(proxy)
        if started:
            async with asyncio.timeout(10):
                await cluster.start()
        return proxy

    async def launcher(self, name: str = "launcher-1") -> FakeLauncher:
        """A launcher that has joined by the first proxy and is seen by all."""
        launcher = FakeLauncher(name)
        self.launchers.append(launcher)
        await launcher.open()
        await self.proxies[0].cluster.heartbeat(name, JOIN, launcher.heartbeat())
        for proxy in self.proxies:
            await eventually(lambda p=proxy: "python3" in p.parts.kernelspecs.names(name))
        return launcher

    async def running(self, proxy: Proxy, kernel_id: str | None = None) -> str:
        """Start a kernel by ``proxy``; every proxy has seen it run."""
        kernel_id = kernel_id or str(uuid.uuid4())
        async with asyncio.timeout(15):
            await proxy.cluster.start_kernel(request(kernel_id))
        for other in self.proxies:
            if other.runner is not None:
                await eventually(lambda p=other: runs(p, kernel_id))
        return kernel_id

    def keeper(self, kernel_id: str) -> FakeKeeper:
        return next(item.keepers[kernel_id] for item in self.launchers if kernel_id in item.keepers)


def runs(proxy: Proxy, kernel_id: str) -> bool:
    entry = proxy.parts.cached(kernel_id)
    return entry is not None and entry.record.state.value == "running"


def state_of(proxy: Proxy, kernel_id: str) -> str | None:
    entry = proxy.parts.view.kernel(kernel_id)
    if entry is None:
        return None
    state = getattr(entry.record, "state", None)
    return "tombstone" if state is None else str(state.value)


def request(kernel_id: str, **changes: Any) -> StartRequest:
    values: dict[str, Any] = {"user": USER, "spec_name": "python3", **changes}
    return StartRequest(kernel_id=kernel_id, **values)


def call(**changes: Any) -> LifecycleCall:
    return LifecycleCall(**changes)


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], *, within: float = 10.0
) -> None:
    """Wait for a condition; fails the test when it does not come."""
    deadline = time.monotonic() + within
    while True:
        result = condition()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, "the awaited condition did not come"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def open_site(**changes: Any) -> AsyncIterator[Site]:
    """A site on an in-memory store; all that it started is ended with it."""
    server = MemoryServer()
    site = Site(new_store=lambda: MemoryStore(server), server=server, **changes)
    async with closing_site(site):
        yield site


@asynccontextmanager
async def closing_site(site: Site) -> AsyncIterator[Site]:
    try:
        yield site
    finally:
        for proxy in site.proxies:
            await proxy.kill()
        for launcher in site.launchers:
            await launcher.close()
