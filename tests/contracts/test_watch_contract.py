"""What every `Store` promises about watches; both twins must pass."""

from __future__ import annotations

import asyncio

import pytest

from contracts.twins import Twin
from holdfast_proxy.store.contract import (
    DeletePrefix,
    Event,
    ModEquals,
    Op,
    Put,
    Store,
    Watch,
    WatchBatch,
)
from holdfast_proxy.store.errors import Compacted, Misuse


async def write(store: Store, *ops: Op) -> int:
    """The revision."""
    return (await store.txn([], list(ops), unconditional=True)).revision


async def take(watch: Watch) -> WatchBatch:
    async with asyncio.timeout(20):
        return await anext(watch)


async def take_until(watch: Watch, revision: int) -> list[Event]:
    """Every event up to ``revision``, which some event of the prefix has."""
    events: list[Event] = []
    position = 0
    while position < revision:
        batch = await take(watch)
        assert batch.events, "a batch has events"
        assert batch.revision == batch.events[-1].revision
        assert batch.events[0].revision > position, "no revision is in two batches"
        position = batch.revision
        events.extend(batch.events)
    return events


@pytest.fixture
async def start(store: Store, prefix: str) -> int:
    """A revision to watch from: the one after a list."""
    return (await store.range(prefix)).revision + 1


async def test_changes_come_in_order_with_their_values(
    store: Store, prefix: str, start: int
) -> None:
    async with store.watch(prefix, start_revision=start) as watch:
        one = await write(store, Put(prefix + "a", b"1"))
        two = await write(store, Put(prefix + "a", b"2"))
        three = await write(store, DeletePrefix(prefix))
        events = await take_until(watch, three)
        assert watch.connected
    assert [(event.key, event.revision, event.deleted) for event in events] == [
        (prefix + "a", one, False),
        (prefix + "a", two, False),
        (prefix + "a", three, True),
    ]
    assert events[0].kv is not None
    assert (events[0].kv.value, events[0].kv.version, events[0].kv.mod_revision) == (b"1", 1, one)
    assert events[1].kv is not None
    assert (events[1].kv.value, events[1].kv.version, events[1].kv.create_revision) == (
        b"2",
        2,
        one,
    )


async def test_the_past_comes_too(store: Store, prefix: str, start: int) -> None:
    revisions = [await write(store, Put(f"{prefix}{n}", b"")) for n in range(5)]
    async with store.watch(prefix, start_revision=start) as watch:
        events = await take_until(watch, revisions[-1])
        assert [event.revision for event in events] == revisions
    async with store.watch(prefix, start_revision=revisions[2]) as watch:
        events = await take_until(watch, revisions[-1])
        assert [event.revision for event in events] == revisions[2:], "from the start, not before"


async def test_the_future_is_waited_for(store: Store, prefix: str, start: int) -> None:
    async with store.watch(prefix, start_revision=start + 2) as watch:
        await write(store, Put(prefix + "a", b""))
        await write(store, Put(prefix + "b", b""))
        last = await write(store, Put(prefix + "c", b""))
        events = await take_until(watch, last)
    assert [event.key for event in events] == [prefix + "c"]


async def test_other_prefixes_are_not_heard(store: Store, prefix: str, start: int) -> None:
    async with store.watch(prefix + "b/", start_revision=start) as watch:
        for name in ("a", "b", "b/1", "b0", "c"):
            await write(store, Put(prefix + name, b""))
        last = await write(store, Put(prefix + "b/2", b""))
        events = await take_until(watch, last)
    assert [event.key.removeprefix(prefix) for event in events] == ["b/1", "b/2"]


async def test_a_transaction_is_never_split(store: Store, prefix: str, start: int) -> None:
    async with store.watch(prefix, start_revision=start) as watch:
        puts = [Put(f"{prefix}{n:03}", b"x" * 100) for n in range(100)]
        revision = await write(store, *puts)
        batch = await take(watch)
    assert batch.revision == revision
    assert [event.key for event in batch.events] == [op.key for op in puts]


async def test_a_burst_arrives_whole(store: Store, prefix: str, start: int) -> None:
    async with store.watch(prefix, start_revision=start) as watch:
        results = await asyncio.gather(
            *(write(store, Put(f"{prefix}{n}", b"")) for n in range(200))
        )
        events = await take_until(watch, max(results))
    assert sorted(event.revision for event in events) == sorted(results)
    assert len({event.key for event in events}) == 200


async def test_history_larger_than_one_message_arrives_whole(
    store: Store, prefix: str, start: int
) -> None:
    """5 MB: etcd splits it into fragments in the middle of transactions."""
    value = b"v" * 330_000
    sizes = (2, 3, 3, 3, 2, 3)  # so that no bound of 2 MB falls between two transactions
    revisions = []
    for n, size in enumerate(sizes):
        puts = [Put(f"{prefix}{n}/{part}", value) for part in range(size)]
        revisions += [await write(store, *puts)] * size
    async with store.watch(prefix, start_revision=start) as watch:
        events = await take_until(watch, revisions[-1])
    assert [event.revision for event in events] == revisions
    assert all(event.kv and event.kv.value == value for event in events)


async def test_a_lease_that_ends_is_seen(store: Store, prefix: str, start: int) -> None:
    async with store.watch(prefix, start_revision=start) as watch:
        lease = await store.lease_grant(1)
        put = await write(store, Put(prefix + "b", b"", lease), Put(prefix + "a", b"", lease))
        await take_until(watch, put)
        batch = await take(watch)
        assert [(event.key, event.deleted) for event in batch.events] == [
            (prefix + "a", True),
            (prefix + "b", True),
        ], "both in one revision, by key"


async def test_list_then_watch_misses_nothing_and_repeats_nothing(
    store: Store, other: Store, prefix: str
) -> None:
    """A mirror built from a list and a watch is the same as a later list, while others write."""

    async def busy() -> int:
        for n in range(60):
            await write(other, Put(f"{prefix}{n % 7}", b"%d" % n))
            if n % 10 == 9:
                await write(other, DeletePrefix(f"{prefix}{n % 3}"))
        return await write(other, Put(prefix + "last", b""))

    writing = asyncio.create_task(busy())
    await asyncio.sleep(0)
    snapshot = await store.range(prefix)
    mirror = {kv.key: kv for kv in snapshot}
    async with store.watch(prefix, start_revision=snapshot.revision + 1) as watch:
        for event in await take_until(watch, await writing):
            assert event.revision > snapshot.revision
            if event.kv is None:
                del mirror[event.key]
            else:
                mirror[event.key] = event.kv
    assert mirror == {kv.key: kv for kv in await store.range(prefix)}


async def test_a_cancelled_wait_loses_nothing(store: Store, prefix: str, start: int) -> None:
    seen: list[int] = []
    async with store.watch(prefix, start_revision=start) as watch:
        written = [await write(store, Put(prefix + "a", b"")) for _ in range(3)]
        async with asyncio.timeout(20):
            while len(seen) < 13:
                try:
                    batch = await asyncio.wait_for(anext(watch), 0.001)
                except TimeoutError:
                    if len(written) < 13:
                        written.append(await write(store, Put(prefix + "a", b"")))
                    continue
                seen.extend(event.revision for event in batch.events)
                while len(written) < 13:
                    written.append(await write(store, Put(prefix + "a", b"")))
    assert seen == written


async def test_compacted_history_is_said(twin: Twin, store: Store, prefix: str, start: int) -> None:
    await write(store, Put(prefix + "a", b"1"))
    await write(store, Put(prefix + "a", b"2"))
    last = await write(store, Put(prefix + "a", b"3"))
    await twin.compact(last)
    async with store.watch(prefix, start_revision=start) as watch:
        with pytest.raises(Compacted) as caught:
            await take(watch)
        assert caught.value.revision >= last
        with pytest.raises(StopAsyncIteration):
            await take(watch)


async def test_a_deletion_at_the_compacted_revision_is_not_lost(
    twin: Twin, store: Store, prefix: str
) -> None:
    """etcd before 3.5.16 takes such a watch and never tells of the deletion."""
    put = await write(store, Put(prefix + "a", b"1"))
    deleted = await write(store, DeletePrefix(prefix))
    assert deleted == put + 1
    await twin.compact(deleted)
    async with store.watch(prefix, start_revision=deleted) as watch:
        with pytest.raises(Compacted):
            await take(watch)


async def test_what_comes_after_the_compaction_is_watched(
    twin: Twin, store: Store, prefix: str
) -> None:
    compacted = await write(store, Put(prefix + "a", b"1"))
    await twin.compact(compacted)
    async with store.watch(prefix, start_revision=compacted + 1) as watch:
        after = await write(store, Put(prefix + "a", b"2"))
        assert [event.revision for event in await take_until(watch, after)] == [after]


async def test_compaction_behind_a_live_watch_does_not_disturb_it(
    twin: Twin, store: Store, prefix: str, start: int
) -> None:
    async with store.watch(prefix, start_revision=start) as watch:
        first = await write(store, Put(prefix + "a", b"1"))
        await take_until(watch, first)
        await twin.compact(first)
        second = await write(store, Put(prefix + "a", b"2"))
        assert [event.revision for event in await take_until(watch, second)] == [second]


async def test_closing_ends_a_waiting_reader(store: Store, prefix: str, start: int) -> None:
    watch = store.watch(prefix, start_revision=start)
    waiting = asyncio.ensure_future(anext(watch, None))
    await asyncio.sleep(0)
    await watch.aclose()
    await watch.aclose()
    async with asyncio.timeout(20):
        assert await waiting is None
    assert not watch.connected


async def test_closing_the_store_ends_its_watches(store: Store, prefix: str, start: int) -> None:
    watch = store.watch(prefix, start_revision=start)
    waiting = asyncio.ensure_future(anext(watch, None))
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(20):
        assert await waiting is None


async def test_two_watches_each_hear_everything(
    store: Store, other: Store, prefix: str, start: int
) -> None:
    async with (
        store.watch(prefix, start_revision=start) as one,
        store.watch(prefix + "a", start_revision=start) as two,
        other.watch(prefix, start_revision=start) as three,
    ):
        revision = await write(store, Put(prefix + "a", b""))
        for watch in (one, two, three):
            assert (await take(watch)).revision == revision


async def test_a_watch_from_nowhere_is_refused(store: Store, prefix: str) -> None:
    with pytest.raises(Misuse):
        store.watch(prefix, start_revision=0)
    with pytest.raises(Misuse):
        store.watch("", start_revision=1)


async def test_the_compare_of_a_seen_revision_wins(store: Store, prefix: str, start: int) -> None:
    """What a cache does: take a revision from an event and write against it."""
    async with store.watch(prefix, start_revision=start) as watch:
        await write(store, Put(prefix + "a", b"1"))
        event = (await take(watch)).events[0]
        result = await store.txn([ModEquals(event.key, event.revision)], [Put(event.key, b"2")])
        assert result.succeeded
