"""The faults of the in-memory twin, which the tests of ownership lean on."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_proxy.store.contract import ModEquals, Put
from holdfast_proxy.store.errors import LeaseLost, Misuse, Unknown, Unreachable
from holdfast_proxy.store.memory import Link, MemoryServer, MemoryStore


async def test_a_refused_link_applies_nothing_and_is_known() -> None:
    store = MemoryStore()
    store.link = Link.REFUSED
    with pytest.raises(Unreachable):
        await store.txn([ModEquals("a", 0)], [Put("a", b"")])
    with pytest.raises(Unreachable):
        await store.get("a")
    store.link = Link.UP
    assert await store.get("a") is None


@pytest.mark.parametrize(
    ("link", "applied"), [(Link.REQUEST_LOST, False), (Link.ANSWER_LOST, True)]
)
async def test_a_lost_message_leaves_a_write_unknown(link: Link, *, applied: bool) -> None:
    store = MemoryStore()
    store.next_links.append(link)
    with pytest.raises(Unknown):
        await store.txn([ModEquals("a", 0)], [Put("a", b"")])
    assert (await store.get("a") is not None) is applied
    store.next_links.append(link)
    with pytest.raises(Unreachable):
        await store.get("a")


async def test_a_cut_watch_catches_up() -> None:
    server = MemoryServer()
    store, other = MemoryStore(server), MemoryStore(server)
    async with store.watch("a", start_revision=1) as watch:
        store.link = Link.REFUSED
        assert not watch.connected
        reading = asyncio.ensure_future(anext(watch))
        await other.txn([ModEquals("a", 0)], [Put("a", b"1")])
        for _ in range(5):
            await asyncio.sleep(0)
        assert not reading.done()
        store.link = Link.UP
        async with asyncio.timeout(5):
            assert [event.key for event in (await reading).events] == ["a"]


async def test_leases_follow_the_clock_that_was_given() -> None:
    now = 100.0
    server = MemoryServer(clock=lambda: now)
    store = MemoryStore(server)
    lease = await store.lease_grant(5)
    await store.txn([ModEquals("a", 0)], [Put("a", b"", lease)])
    now = 104.9
    assert await store.get("a") is not None
    assert await store.lease_keepalive(lease) == 5
    now = 109.8
    assert await store.get("a") is not None
    async with store.watch("a", start_revision=server.revision + 1) as watch:
        reading = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        now = 110.0
        server.tick()
        async with asyncio.timeout(5):
            assert (await reading).events[0].deleted
    with pytest.raises(LeaseLost):
        await store.lease_keepalive(lease)


async def test_compaction_goes_forward_only() -> None:
    server = MemoryServer()
    await MemoryStore(server).txn([ModEquals("a", 0)], [Put("a", b"")])
    server.compact(2)
    for revision in (1, 2, 3):
        with pytest.raises(Misuse):
            server.compact(revision)
