"""What the timeline tells: who came and went, why a kernel was taken over, what was lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast_protocol.keys import Kind
from holdfast_protocol.records import EventRecord
from holdfast_proxy.overview import Line
from holdfast_proxy.ownership.cache import Entry
from holdfast_proxy.ownership.history.chronicle import read_lines, surplus
from holdfast_proxy.ownership.history.narrator import remove_surplus
from holdfast_proxy.store.memory import Link
from support.ownership_site import Proxy, Site, eventually, open_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as opened:
        await opened.proxy("a")
        await opened.proxy("b")
        await opened.launcher()
        yield opened


def lines(proxy: Proxy) -> list[Line]:
    return read_lines(proxy.parts.view.events, proxy.parts.timeline.pending)


def told(proxy: Proxy, kind: str) -> list[Line]:
    return [line for line in lines(proxy) if line.kind == kind]


async def test_who_joins_is_told_once(site: Site) -> None:
    a, b = site.proxies
    await eventually(lambda: len(told(a, "proxy joined")) == 2)
    assert [line.proxy for line in told(b, "proxy joined")] == ["a", "b"]
    await eventually(lambda: bool(told(b, "launcher joined")))
    (line,) = told(b, "launcher joined")
    assert line.launcher == "launcher-1"


async def test_a_start_names_its_launcher(site: Site) -> None:
    a, _ = site.proxies
    kernel_id = await site.running(a)
    await eventually(lambda: bool(told(a, "started")))
    (line,) = told(a, "started")
    assert (line.kernel, line.launcher, line.proxy) == (kernel_id, "launcher-1", "a")


async def test_a_takeover_names_the_former_owner_and_the_evidence(site: Site) -> None:
    a, b = site.proxies
    kernel_id = await site.running(a)
    peers = b.parts.ownership._peers._peers
    await eventually(lambda: "a" in peers and peers["a"].connected)
    await a.kill()
    await eventually(lambda: bool(told(b, "taken over")))
    (line,) = told(b, "taken over")
    assert (line.kernel, line.proxy) == (kernel_id, "b")
    assert line.facts["from"] == "a"
    assert line.facts["why"] == "its port refuses connections"
    assert line.facts["token"] == str(b.token(kernel_id))
    assert line.detail == "from a: its port refuses connections"


async def test_a_takeover_after_a_lease(site: Site) -> None:
    a, b = site.proxies
    await site.running(a)
    assert site.server is not None
    a.pause(site.server)
    await eventually(lambda: bool(told(b, "taken over")))
    (line,) = told(b, "taken over")
    assert line.detail == "from a: its lease is gone"
    await eventually(lambda: bool(told(b, "proxy gone")))
    (line,) = told(b, "proxy gone")
    assert (line.proxy, line.facts["by"]) == ("a", "b")


async def test_a_drain_is_no_loss(site: Site) -> None:
    a, b = site.proxies
    await site.running(a)
    await a.cluster.drain()
    await eventually(lambda: bool(told(b, "taken over")))
    assert [line.detail for line in told(b, "taken over")] == ["from a: it gave the kernel up"]
    (line,) = told(b, "proxy draining")
    assert (line.proxy, line.detail) == ("a", "it gives up 1 kernels")
    await eventually(lambda: "a" not in b.parts.view.proxies)
    # What would have been said of it is said before what is said of one that dies later.
    c = await site.proxy("c")
    await c.kill()
    assert site.server is not None
    site.server.revoke(c.parts.member._lease.lease_id)
    await eventually(lambda: bool(told(b, "proxy gone")))
    assert [line.proxy for line in told(b, "proxy gone")] == ["c"]


async def test_all_who_see_a_proxy_go_tell_it_once(site: Site) -> None:
    a, b = site.proxies
    c = await site.proxy("c")
    await eventually(lambda: len(a.parts.view.proxies) == len(c.parts.view.proxies) == 3)
    assert site.server is not None
    await b.kill()
    site.server.revoke(b.parts.member._lease.lease_id)
    await eventually(lambda: bool(told(c, "proxy gone")))
    stored = [e.record for e in c.parts.view.events.values() if e.record.kind == "proxy gone"]
    assert len(told(a, "proxy gone")) == 1
    assert stored[0].mark


async def test_a_launcher_goes_and_comes_back(site: Site) -> None:
    a, b = site.proxies
    assert site.server is not None
    lease = a.parts.view.launchers["launcher-1"].lease
    site.server.revoke(lease)
    await eventually(lambda: bool(told(b, "launcher gone")))
    (line,) = told(b, "launcher gone")
    assert line.launcher == "launcher-1"
    launcher = site.launchers[0]
    await b.cluster.heartbeat("launcher-1", "join-token", launcher.heartbeat())
    await eventually(lambda: len(told(a, "launcher joined")) == 2)


async def test_what_a_log_has_lost_is_told_once(site: Site) -> None:
    a, b = site.proxies
    narrators = [proxy.cluster._administrator.narrator for proxy in (a, b)]
    for narrator in narrators:
        narrator.kernel_lost("k", 0)
    narrators[0].kernel_lost("k", 7)
    narrators[0].kernel_lost("k", 7)
    await eventually(lambda: bool(told(b, "gap")))
    narrators[1].kernel_lost("k", 7)
    (line,) = told(b, "gap")
    assert (line.kernel, line.facts["lost"]) == ("k", 7)
    a.moved.ahead += 61.0
    narrators[0].kernel_lost("k", 10)
    await eventually(lambda: len(told(b, "gap")) == 2)
    assert told(b, "gap")[1].facts["lost"] == 3


async def test_a_log_that_overflows_all_day_does_not_fill_the_timeline(site: Site) -> None:
    a, _ = site.proxies
    narrator = a.cluster._administrator.narrator
    for lost in range(1, 200):
        narrator.kernel_lost("k", lost)
    assert [line.facts["lost"] for line in told(a, "gap")] == [1]
    a.moved.ahead += 61.0
    narrator.kernel_lost("k", 200)
    assert [line.facts["lost"] for line in told(a, "gap")] == [1, 199], "and nothing is left out"


async def test_lines_wait_for_a_store_that_is_away(site: Site) -> None:
    a, b = site.proxies
    a.link.link = Link.REFUSED
    a.parts.timeline.note("died", "k", "why")
    assert [line.detail for line in told(a, "died")] == ["why"], "shown before it is stored"
    assert told(b, "died") == []
    a.link.link = Link.UP
    await eventually(lambda: bool(told(b, "died")))
    assert len(told(a, "died")) == 1


async def test_the_timeline_is_bounded(site: Site) -> None:
    a, _ = site.proxies
    for number in range(300):
        a.parts.timeline.note("died", f"k{number}")
        if number % 100 == 99:
            await eventually(lambda: not a.parts.timeline.pending)
    await eventually(lambda: len(told(a, "died")) >= 300)
    await remove_surplus(a.store, site.keys, a.parts.view.events, keep=50)
    await eventually(lambda: len(a.parts.view.events) == 50)
    assert told(a, "died")[-1].kernel == "k299", "the newest stay"
    assert len(await a.store.range(site.keys.all_of(Kind.EVENT))) == 50


def event(name: str, **changes: Any) -> tuple[str, Entry[EventRecord]]:
    values: dict[str, Any] = {"kind": "k", "at": "2026", "proxy_id": "p", **changes}
    return name, Entry(EventRecord(**values), 1, 0)


def test_lines_are_in_the_order_of_their_names_and_each_mark_once() -> None:
    stored = dict([event("3", detail="c"), event("1", mark="m"), event("2", mark="m")])
    pending = [("4", EventRecord(kind="k", at="2026", proxy_id="p", detail="d"))]
    assert [line.detail for line in read_lines(stored, pending)] == ["", "c", "d"]


def test_the_oldest_are_too_many() -> None:
    assert list(surplus(["3", "1", "2"], keep=2)) == ["1"]
    assert list(surplus(["1"], keep=2)) == []
