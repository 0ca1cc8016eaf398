"""The overview over real sockets: proxies that come, go and drain, keepers that do not answer,
and a store that is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast_proxy.cluster import KeeperEndpoint
from holdfast_proxy.edge.context import EDGE
from holdfast_proxy.errors import NotFound, Unavailable
from holdfast_proxy.overview import EdgeState, Overview
from holdfast_proxy.ownership.calls.keepers import KeeperState, KeeperUnreachable
from holdfast_proxy.ownership.overview import log_fill
from holdfast_proxy.ownership.overview.log_fill import LogFill
from holdfast_proxy.store.memory import Link
from support.ownership_site import MovedClock, Proxy, Site, call, eventually, open_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as opened:
        await opened.proxy("a")
        await opened.proxy("b")
        await opened.launcher()
        yield opened


async def look(proxy: Proxy) -> Overview:
    began = time.monotonic()
    seen = await proxy.cluster.administration.overview(EdgeState(tunnels=4, status="ready"))
    assert time.monotonic() - began < 3, "it answers whatever else is away"
    return seen


def ids(rows: Any) -> list[str]:
    return [row.id for row in rows]


async def test_everything_that_there_is(site: Site) -> None:
    a, _ = site.proxies
    kernel_id = await site.running(a)
    seen = await look(a)
    assert (seen.cluster, seen.mode, seen.era) == (site.name, "active-active", 1)
    assert [(p.id, p.is_self, p.status, p.tunnels, p.owned) for p in seen.proxies] == [
        ("a", True, "ready", 4, 1),
        ("b", False, "ready", 0, 0),
    ]
    (launcher,) = seen.launchers
    assert (launcher.alive, launcher.kernels, bool(launcher.last_seen)) == (True, 1, True)
    (kernel,) = seen.kernels
    assert (kernel.id, kernel.user, kernel.owner, kernel.state) == (kernel_id, "ada", "a", "idle")
    assert kernel.log is not None, "the keeper was asked"
    assert seen.etcd.reachable
    assert seen.etcd.lease_age is not None


async def test_what_others_heard_of_a_launcher_counts(site: Site) -> None:
    _, b = site.proxies
    assert b.parts.launchers.heard == {}, "its heartbeats went to the other one"
    (launcher,) = (await look(b)).launchers
    assert launcher.last_seen is not None


async def test_a_proxy_that_is_gone_is_unreachable_and_then_off_the_list(site: Site) -> None:
    a, b = site.proxies
    await b.kill()
    (mine, other) = (await look(a)).proxies
    assert (mine.status, other.status, other.tunnels) == ("ready", "unreachable", None)
    assert other.message == "its port refuses connections"
    assert site.server is not None
    site.server.revoke(b.parts.member._lease.lease_id)
    await eventually(lambda: "b" not in a.parts.view.proxies)
    assert ids((await look(a)).proxies) == ["a"]


async def test_without_etcd_it_is_what_was_known_and_says_so(site: Site) -> None:
    a, b = site.proxies
    kernel_id = await site.running(a)
    await look(a)
    for proxy in (a, b):
        proxy.link.link = Link.REFUSED
    a.moved.ahead += 4.0  # the lease is not renewed, the last look is old
    seen = await look(a)
    assert not seen.etcd.reachable
    assert "does not answer" in seen.etcd.warnings[0]
    assert seen.etcd.version is not None, "the last one that it said"
    assert seen.etcd.lease_age is not None
    assert seen.etcd.lease_age >= 4.0
    assert ids(seen.kernels) == [kernel_id]
    assert ids(seen.proxies) == ["a", "b"]


async def test_a_keeper_that_does_not_answer(site: Site) -> None:
    a, _ = site.proxies
    kernel_id = await site.running(a)
    await site.keeper(kernel_id).close()
    a.moved.ahead += 10.0  # its launcher's word is old, too
    seen = await look(a)
    (kernel,) = seen.kernels
    assert (kernel.state, kernel.log) == ("unreachable", None)


async def test_a_deleted_kernel_is_off_the_list(site: Site) -> None:
    a, _ = site.proxies
    kernel_id = await site.running(a)
    await a.cluster.delete_kernel(kernel_id, "ada", call())
    assert ids((await look(a)).kernels) == []


async def test_before_the_first_sync() -> None:
    async with open_site() as site:
        proxy = await site.proxy("a", started=False)
        with pytest.raises(Unavailable):
            await look(proxy)


async def test_a_drain_is_asked_of_the_one_that_is_meant(site: Site) -> None:
    a, b = site.proxies
    asked = asyncio.Event()
    assert b.runner is not None
    b.runner.app[EDGE].stop = asked.set
    await a.cluster.administration.pass_drain("b")
    async with asyncio.timeout(5):
        await asked.wait()
    with pytest.raises(NotFound, match="no proxy 'c'"):
        await a.cluster.administration.pass_drain("c")
    await b.close_port()
    with pytest.raises(Unavailable):
        await a.cluster.administration.pass_drain("b")


async def test_checks_tell_what_is_reached_and_whose_clock_is_off(site: Site) -> None:
    a, b = site.proxies
    b.moved.ahead = 30.0
    checks = await a.cluster.administration.checks()
    (peer,) = checks["proxies"]
    assert peer["id"] == "b"
    assert peer["clock_skew"] == pytest.approx(30, abs=1)
    (launcher,) = checks["launchers"]
    assert launcher["reachable"]
    assert abs(launcher["clock_skew"]) < 2, "by the Date of an answer"
    await site.launchers[0].close()
    (launcher,) = (await a.cluster.administration.checks())["launchers"]
    assert not launcher["reachable"]
    assert launcher["message"]


# --- keepers are asked within bounds ---


class CountingKeepers:
    """Keepers whose answers a test holds back."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at_once = 0
        self.most = 0
        self.hold: asyncio.Event | None = None
        self.silent: set[str] = set()

    async def state(self, endpoint: KeeperEndpoint, *, timeout: float) -> KeeperState:
        self.asked.append(endpoint.kernel_id)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.hold is not None:
                await self.hold.wait()
            if endpoint.kernel_id in self.silent:
                raise KeeperUnreachable("no", sent=False)
        finally:
            self.at_once -= 1
        return KeeperState(
            nonce="n",
            epoch="e",
            incarnation=1,
            execution_state="idle",
            reason=None,
            last_activity=None,
            connections=0,
            kernel_session=None,
        )


def endpoints(count: int) -> dict[str, KeeperEndpoint]:
    names = [f"k{n:03}" for n in range(count)]
    return {name: KeeperEndpoint(name, "127.0.0.1", 1, None, "x") for name in names}


async def test_one_look_asks_a_bounded_number_and_the_next_asks_the_others() -> None:
    keepers, moved = CountingKeepers(), MovedClock()
    fill = LogFill(keepers=keepers, clock=moved.clock())  # type: ignore[arg-type]  # its one method
    many = endpoints(log_fill.MOST * 2)
    await fill.look(many)
    assert len(keepers.asked) == log_fill.MOST
    assert keepers.most <= 16
    await fill.look(many)
    assert sorted(keepers.asked) == sorted(many), "each once"
    await fill.look(many)
    assert len(keepers.asked) == len(many), "what is known is good for some seconds"
    moved.ahead += log_fill.KEEP
    await fill.look(many)
    assert len(keepers.asked) == len(many) + log_fill.MOST


async def test_a_look_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_fill, "DEADLINE", 0.2)
    keepers = CountingKeepers()
    keepers.hold = asyncio.Event()
    fill = LogFill(keepers=keepers, clock=MovedClock().clock())  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await fill.look(endpoints(20))
    assert fill.is_silent("k000"), "it was asked all the while"
    assert not fill.is_silent("k019"), "its turn did not come"
    assert keepers.at_once == 0


async def test_who_does_not_answer_is_silent_until_it_does() -> None:
    keepers, moved = CountingKeepers(), MovedClock()
    keepers.silent = {"k000"}
    fill = LogFill(keepers=keepers, clock=moved.clock())  # type: ignore[arg-type]
    await fill.look(endpoints(2))
    assert (fill.is_silent("k000"), fill.state("k000")) == (True, None)
    assert fill.state("k001") is not None
    keepers.silent, moved.ahead = set(), log_fill.KEEP
    await fill.look(endpoints(2))
    assert fill.state("k000") is not None
    await fill.look({})
    assert fill.state("k000") is None, "a kernel that went is forgotten"
