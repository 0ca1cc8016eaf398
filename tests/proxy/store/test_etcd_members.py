"""`EtcdStore` on three real members, of which some are killed or frozen."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_proxy.store.contract import (
    Event,
    ModEquals,
    Op,
    Put,
    Store,
    Watch,
)
from holdfast_proxy.store.errors import NoAnswer, Unknown, Unreachable
from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore
from holdfast_proxy.store.watch import WatchTiming
from support.etcd_server import EtcdCluster, EtcdMember

from .conftest import healthy

TIMING = WatchTiming(probe_after=0.3, silent_after=1.0)


async def write(store: Store, *ops: Op) -> int:
    return (await store.txn([], list(ops), unconditional=True, timeout=20)).revision


async def take_until(watch: Watch, revision: int) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(40):
        while not events or events[-1].revision < revision:
            events.extend((await anext(watch)).events)
    return events


async def count_to(store: Store, key: str, goal: int) -> None:
    """A counter raised by compare-and-swap; after an unknown outcome it is read again."""
    while True:
        try:
            kv = await store.get(key, timeout=2)
            value = int(kv.value) if kv else 0
            if value >= goal:
                return
            put = Put(key, b"%d" % (value + 1))
            await store.txn([ModEquals(key, kv.mod_revision if kv else 0)], [put], timeout=2)
        except NoAnswer:
            continue


def first_at(three: EtcdCluster, member: EtcdMember) -> tuple[str, ...]:
    """All endpoints, this member's first."""
    rest = [url for url in three.endpoints if url != member.client_url]
    return (member.client_url, *rest)


async def test_status_lists_all_members(three: EtcdCluster) -> None:
    async with EtcdStore(EtcdConfig(endpoints=three.endpoints)) as store:
        status = await store.status()
    urls = sorted(url for member in status.members for url in member.client_urls)
    assert urls == sorted(three.endpoints)
    assert status.leader in {member.id for member in status.members}
    assert status.endpoint == three.endpoints[0].removeprefix("http://")


async def test_a_killed_follower_is_left_for_the_next(three: EtcdCluster, prefix: str) -> None:
    leader = await asyncio.to_thread(three.leader)
    follower = next(member for member in three.members if member is not leader)
    config = EtcdConfig(endpoints=first_at(three, follower), watch=TIMING)
    async with EtcdStore(config) as store:
        start = (await write(store, Put(prefix + "a", b""))) + 1
        async with store.watch(prefix, start_revision=start) as watch:
            follower.kill()
            # A quorum stands, so reads need no retry by the caller.
            assert await store.get(prefix + "a") is not None
            revisions = [await write(store, Put(prefix + name, b"")) for name in "bcd"]
            events = await take_until(watch, revisions[-1])
            assert [event.revision for event in events] == revisions


async def test_a_killed_leader_costs_a_moment_and_no_step(three: EtcdCluster, prefix: str) -> None:
    leader = await asyncio.to_thread(three.leader)
    config = EtcdConfig(endpoints=first_at(three, leader), watch=TIMING)
    key = prefix + "counter"
    async with EtcdStore(config) as store:
        start = (await write(store, Put(prefix + "x", b""))) + 1
        async with store.watch(prefix, start_revision=start) as watch, asyncio.timeout(60):
            counting = asyncio.create_task(count_to(store, key, 300))
            first = await take_until(watch, start)
            leader.kill()
            await counting
            last = await store.get(key, timeout=10)
            assert last is not None
            events = first + await take_until(watch, last.mod_revision)
    values = [int(event.kv.value) for event in events if event.kv]
    assert values == list(range(1, 301)), "each step once, in order, seen once"


async def test_a_frozen_member_is_left_by_calls(three: EtcdCluster, prefix: str) -> None:
    frozen = await asyncio.to_thread(three.leader)
    async with EtcdStore(EtcdConfig(endpoints=first_at(three, frozen))) as store:
        await write(store, Put(prefix, b"1"))
        lease = await store.lease_grant(30)
        frozen.freeze()
        async with asyncio.timeout(30):
            while True:
                try:
                    await store.lease_keepalive(lease, timeout=3)
                    break
                except NoAnswer:  # until the others have a new leader
                    continue
        kv = await store.get(prefix, timeout=10)
        assert kv is not None
        assert store._caller.channels.current.target != frozen.client_url.removeprefix("http://")


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_a_watch_leaves_a_frozen_member(three: EtcdCluster, prefix: str, which: str) -> None:
    leader = await asyncio.to_thread(three.leader)
    follower = next(member for member in three.members if member is not leader)
    other = next(member for member in three.members if member not in (leader, follower))
    frozen = leader if which == "leader" else follower
    config = EtcdConfig(endpoints=first_at(three, frozen), watch=TIMING)
    writer_config = EtcdConfig(endpoints=(other.client_url,))
    async with EtcdStore(config) as store, EtcdStore(writer_config) as writer:
        start = (await write(store, Put(prefix + "a", b""))) + 1
        async with store.watch(prefix, start_revision=start) as watch:
            seen = await write(store, Put(prefix + "b", b""))
            events = await take_until(watch, seen)
            frozen.freeze()
            revisions = [seen]
            async with asyncio.timeout(30):
                while len(revisions) < 4:
                    try:
                        result = await writer.txn(
                            [ModEquals(f"{prefix}{len(revisions)}", 0)],
                            [Put(f"{prefix}{len(revisions)}", b"")],
                        )
                        revisions.append(result.revision)
                    except Unknown:
                        kv = await writer.get(f"{prefix}{len(revisions)}", timeout=20)
                        revisions.extend([kv.mod_revision] if kv else [])
            events += await take_until(watch, revisions[-1])  # while it is still frozen
            frozen.thaw()
            await healthy(three)
            revisions.append(await write(writer, Put(prefix + "last", b"")))
            events += await take_until(watch, revisions[-1])
            assert [event.revision for event in events] == revisions


async def test_without_a_quorum_only_serializable_reads_are_answered(
    three: EtcdCluster, prefix: str
) -> None:
    survivor = three.members[2]
    async with EtcdStore(EtcdConfig(endpoints=first_at(three, survivor), watch=TIMING)) as store:
        start = (await write(store, Put(prefix, b"1"))) + 1
        async with store.watch(prefix, start_revision=start) as watch:
            for member in three.members[:2]:
                member.kill()
            with pytest.raises(NoAnswer):
                await store.txn([ModEquals(prefix, start - 1)], [Put(prefix, b"2")], timeout=1)
            with pytest.raises(Unreachable):
                await store.get(prefix, timeout=1)
            kv = await store.get(prefix, serializable=True, timeout=5)
            assert kv is not None
            assert (await store.status(timeout=5)).member
            three.start()
            await healthy(three)
            last = await write(store, Put(prefix, b"3"))
            events = await take_until(watch, last)
            assert events[-1].kv is not None
            assert events[-1].kv.value == b"3"
            assert len({event.revision for event in events}) == len(events)
