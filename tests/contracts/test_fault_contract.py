"""What a store promises while the way to its server fails; the twins keep it alike.

The in-memory twin stands in for etcd in the tests of ownership, which are worth as much as its
faults are like etcd's.
"""

from __future__ import annotations

import asyncio

import pytest

from contracts.twins import Line, Twin
from holdfast_proxy.store.contract import Event, ModEquals, Op, Put, Store, Watch
from holdfast_proxy.store.errors import Compacted, LeaseLost, Unknown, Unreachable

#: What a call that must fail is given, in s.
SHORT = 0.5


async def write(store: Store, *ops: Op) -> int:
    return (await store.txn([], list(ops), unconditional=True)).revision


async def take_until(watch: Watch, revision: int) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(30):
        while not events or events[-1].revision < revision:
            events.extend((await anext(watch)).events)
    return events


async def wait_there(store: Store, key: str) -> None:
    async with asyncio.timeout(30):
        while await store.get(key) is None:  # noqa: ASYNC110 - a read is what tells
            await asyncio.sleep(0.01)


async def test_a_refused_call_is_known_to_have_done_nothing(
    line: Line, store: Store, prefix: str
) -> None:
    await line.cut()
    with pytest.raises(Unreachable):
        await line.store.txn([ModEquals(prefix, 0)], [Put(prefix, b"")], timeout=SHORT)
    with pytest.raises(Unreachable):
        await line.store.get(prefix, timeout=SHORT)
    assert await store.get(prefix) is None
    await line.mend()
    result = await line.store.txn([ModEquals(prefix, 0)], [Put(prefix, b"")], timeout=20)
    assert result.succeeded


async def test_a_write_whose_answer_is_lost_is_unknown_and_done_once(
    line: Line, store: Store, prefix: str
) -> None:
    claim = line.store.txn([ModEquals(prefix, 0)], [Put(prefix, b"mine")], timeout=20)
    with pytest.raises(Unknown):
        await line.lose_answer(claim, wait_there(store, prefix))
    again = await line.store.txn([ModEquals(prefix, 0)], [Put(prefix, b"other")], timeout=20)
    assert not again.succeeded, "who asks again by comparing learns that it was done"
    found = await line.store.get(prefix, timeout=20)
    assert found is not None
    assert (found.value, found.version) == (b"mine", 1)


async def test_a_watch_that_was_cut_misses_and_repeats_nothing(
    line: Line, store: Store, prefix: str
) -> None:
    written = [await write(store, Put(prefix, b"0"))]
    async with line.store.watch(prefix, start_revision=written[0]) as watch:
        events = await take_until(watch, written[0])
        for _ in range(2):
            await line.cut()
            async with asyncio.timeout(30):
                while watch.connected:  # noqa: ASYNC110 - a property has no event
                    await asyncio.sleep(0.01)
            written += [await write(store, Put(prefix, b"%d" % n)) for n in range(3)]
            await line.mend()
            events += await take_until(watch, written[-1])
    assert [event.revision for event in events] == written


async def test_compaction_behind_a_cut_watch_is_said(
    twin: Twin, line: Line, store: Store, prefix: str
) -> None:
    first = await write(store, Put(prefix, b"1"))
    async with line.store.watch(prefix, start_revision=first) as watch:
        await take_until(watch, first)
        await line.cut()
        await write(store, Put(prefix, b"2"))
        last = await write(store, Put(prefix, b"3"))
        await twin.compact(last)
        await line.mend()
        with pytest.raises(Compacted):
            await take_until(watch, last)
    snapshot = await line.store.range(prefix, timeout=20)
    async with line.store.watch(prefix, start_revision=snapshot.revision + 1) as again:
        revision = await write(store, Put(prefix, b"4"))
        assert [event.revision for event in await take_until(again, revision)] == [revision]


async def test_a_lease_that_ran_out_behind_a_cut_line_is_lost(
    line: Line, store: Store, prefix: str
) -> None:
    """Whoever held it finds out by the first call, and can do nothing under it any more."""
    lease = await line.store.lease_grant(1, timeout=20)
    put = await write(line.store, Put(prefix, b"mine", lease))
    async with store.watch(prefix, start_revision=put + 1) as watch:
        await line.cut()
        with pytest.raises((Unreachable, Unknown)):
            await line.store.lease_keepalive(lease, timeout=SHORT)
        assert (await take_until(watch, put + 1))[0].deleted
    await line.mend()
    with pytest.raises(LeaseLost):
        await line.store.lease_keepalive(lease, timeout=20)
    with pytest.raises(LeaseLost):
        await line.store.txn([ModEquals(prefix, 0)], [Put(prefix, b"", lease)], timeout=20)
    assert await store.get(prefix) is None
