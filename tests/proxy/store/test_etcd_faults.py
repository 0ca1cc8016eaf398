"""`EtcdStore` on one real etcd that is killed, frozen, cut off and compacted."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from contracts.twins import compact_etcd
from holdfast_proxy.store.contract import (
    Delete,
    Event,
    Get,
    ModEquals,
    Op,
    Put,
    Store,
    Watch,
    WatchBatch,
)
from holdfast_proxy.store.errors import (
    Compacted,
    HistoryReplaced,
    LeaseLost,
    NoAnswer,
    Unknown,
    Unreachable,
)
from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore
from holdfast_proxy.store.watch import WatchTiming
from support.etcd_server import EtcdCluster
from support.tcp_line import TcpLine

from .conftest import QUICK, healthy


async def write(store: Store, *ops: Op) -> int:
    return (await store.txn([], list(ops), unconditional=True)).revision


async def take(watch: Watch) -> WatchBatch:
    async with asyncio.timeout(30):
        return await anext(watch)


async def take_until(watch: Watch, revision: int) -> list[Event]:
    events: list[Event] = []
    while not events or events[-1].revision < revision:
        events.extend((await take(watch)).events)
    return events


async def wait_connected(watch: Watch, *, connected: bool = True) -> None:
    async with asyncio.timeout(30):
        while watch.connected is not connected:  # noqa: ASYNC110 - a property has no event
            await asyncio.sleep(0.01)


# --- killed and restarted


async def test_calls_work_again_soon_after_a_restart(
    single: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    await write(store, Put(prefix + "a", b"before"))
    member = single.members[0]
    for _ in range(2):
        member.kill()
        with pytest.raises(Unreachable):
            await store.get(prefix + "a", timeout=0.7)
        member.start()
        await healthy(single)
        begin = time.monotonic()
        kv = await store.get(prefix + "a", timeout=10)
        assert kv is not None
        assert kv.value == b"before"
        # gRPC's own reconnect backoff would have grown past a second by now.
        assert time.monotonic() - begin < 2


async def test_a_call_begun_while_etcd_is_down_is_answered_when_it_is_back(
    single: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    single.members[0].kill()
    waiting = asyncio.create_task(store.txn([ModEquals(prefix, 0)], [Put(prefix, b"")], timeout=20))
    with pytest.raises(Unreachable):
        await store.get(prefix, timeout=0.3)
    single.members[0].start()
    assert (await waiting).succeeded


async def test_a_watch_goes_on_over_a_restart(
    single: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    revisions: list[int] = []
    async with store.watch(prefix, start_revision=(await write(store, Put(prefix, b""))) + 1) as w:
        events: list[Event] = []
        for round_ in range(2):
            revisions.append(await write(store, Put(f"{prefix}{round_}", b"")))
            if round_:  # once without having read it before the kill
                events += await take_until(w, revisions[-1])
            single.members[0].kill()
            await wait_connected(w, connected=False)
            single.members[0].start()
            await healthy(single)
            revisions.append(await write(store, Delete(f"{prefix}{round_}")))
        events += await take_until(w, revisions[-1])
        await wait_connected(w)
    assert [event.revision for event in events] == revisions


async def test_a_lease_survives_a_restart_of_etcd(
    single: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    lease = await store.lease_grant(5)
    await write(store, Put(prefix, b"", lease))
    single.members[0].kill()
    with pytest.raises(NoAnswer):
        await store.lease_keepalive(lease, timeout=0.5)
    single.members[0].start()
    await healthy(single)
    assert await store.lease_keepalive(lease, timeout=10) >= 5
    await store.lease_revoke(lease)
    with pytest.raises(LeaseLost):
        await store.lease_keepalive(lease)


# --- outcomes


async def test_what_was_never_sent_is_unreachable(single: EtcdCluster, prefix: str) -> None:
    """Refused, and a port that accepts and says nothing: no HTTP/2, so nothing was sent."""
    single.members[0].kill()
    async with EtcdStore(EtcdConfig(endpoints=single.endpoints)) as store:
        with pytest.raises(Unreachable):
            await store.txn([ModEquals(prefix, 0)], [Put(prefix, b"")], timeout=0.5)
    mute = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    async with mute, EtcdStore(EtcdConfig(endpoints=(f"127.0.0.1:{port}",))) as store:
        with pytest.raises(Unreachable):
            await store.txn([ModEquals(prefix, 0)], [Put(prefix, b"")], timeout=0.5)


async def test_a_frozen_server_leaves_a_write_unknown_and_it_is_applied_once(
    single: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    start = (await write(store, Put(prefix + "x", b""))) + 1
    single.members[0].freeze()
    with pytest.raises(Unknown):
        await store.txn([], [Put(prefix + "a", b"1")], unconditional=True, timeout=0.5)
    with pytest.raises(Unreachable):
        await store.get(prefix + "a", timeout=0.5)
    with pytest.raises(Unreachable):
        await store.txn([ModEquals(prefix, 0)], [Get(prefix)], timeout=0.5)
    single.members[0].thaw()
    # Without a compare, a second sending would show as a second event.
    fence = await write(store, Put(prefix + "fence", b""))
    async with store.watch(prefix, start_revision=start) as watch:
        events = await take_until(watch, fence)
    assert len([event for event in events if event.key == prefix + "a"]) <= 1


async def test_an_answer_that_is_lost_leaves_the_write_unknown_and_applied(
    single: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    async with TcpLine(single.members[0].client_port) as line:
        config = EtcdConfig(endpoints=(f"127.0.0.1:{line.port}",))
        async with EtcdStore(config) as cut_off:
            await cut_off.get(prefix)
            line.hold_answers()
            claim = cut_off.txn([ModEquals(prefix, 0)], [Put(prefix, b"mine")], timeout=20)
            claiming = asyncio.create_task(claim)
            start = (await store.range(prefix)).revision
            async with store.watch(prefix, start_revision=start) as watch:
                await take(watch)  # it has been applied
            await line.cut()
            with pytest.raises(Unknown):
                await claiming
            line.release_answers()
            await line.open()
            kv = await cut_off.get(prefix, timeout=20)
            assert kv is not None
            assert (kv.value, kv.version) == (b"mine", 1), "not sent a second time"


async def test_a_grant_whose_answer_is_lost_is_repeated_not_doubled(
    single: EtcdCluster, prefix: str
) -> None:
    async with TcpLine(single.members[0].client_port) as line:
        config = EtcdConfig(endpoints=(f"127.0.0.1:{line.port}",))
        async with EtcdStore(config) as store:
            await store.get(prefix)
            line.hold_answers()
            granting = asyncio.create_task(store.lease_grant(60, timeout=20))
            async with asyncio.timeout(20):
                await line.swallowed.wait()
            await line.cut()
            line.release_answers()
            await line.open()
            lease = await granting
            assert await store.lease_keepalive(lease) == 60
            await store.lease_revoke(lease)


async def test_deadlines_hold(single: EtcdCluster, store: EtcdStore, prefix: str) -> None:
    lease = await store.lease_grant(60)
    single.members[0].freeze()
    begin = time.monotonic()
    results = await asyncio.gather(
        store.get(prefix, timeout=0.5),
        store.range(prefix, serializable=True, timeout=0.5),
        store.txn([ModEquals(prefix, 0)], [Put(prefix, b"")], timeout=0.5),
        store.lease_grant(5, timeout=0.5),
        store.lease_keepalive(lease, timeout=0.5),
        store.lease_revoke(lease, timeout=0.5),
        store.status(timeout=0.5),
        return_exceptions=True,
    )
    assert time.monotonic() - begin < 5
    kinds = [type(result) for result in results]
    assert kinds == [Unreachable, Unreachable, Unknown, Unknown, Unknown, Unknown, Unreachable]


# --- watches


async def test_a_watch_notices_a_frozen_server_and_goes_on_after_it(
    single: EtcdCluster, prefix: str
) -> None:
    timing = WatchTiming(probe_after=0.2, silent_after=0.6)
    async with EtcdStore(EtcdConfig(endpoints=single.endpoints, watch=timing)) as store:
        start = (await write(store, Put(prefix + "a", b""))) + 1
        async with store.watch(prefix, start_revision=start) as watch:
            await wait_connected(watch)
            single.members[0].freeze()
            await wait_connected(watch, connected=False)
            single.members[0].thaw()
            revisions = [await write(store, Put(prefix + name, b"")) for name in "bc"]
            events = await take_until(watch, revisions[-1])
            assert [event.revision for event in events] == revisions


async def test_a_quiet_watch_stays_connected(single: EtcdCluster, prefix: str) -> None:
    """Progress answers are heard: no reconnect for mere silence of the keys."""
    timing = WatchTiming(probe_after=0.05, silent_after=5)
    async with EtcdStore(EtcdConfig(endpoints=single.endpoints, watch=timing)) as store:
        start = (await write(store, Put(prefix + "a", b""))) + 1
        async with store.watch(prefix, start_revision=start) as watch:
            await wait_connected(watch)
            pump = watch._pump
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.5)  # about ten questions and answers
            assert watch.connected
            assert not pump.done()
            revision = await write(store, Put(prefix + "b", b""))
            assert (await take(watch)).revision == revision


async def test_compaction_behind_a_cut_off_watch_is_said(
    single: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    async with TcpLine(single.members[0].client_port) as line:
        config = EtcdConfig(endpoints=(f"127.0.0.1:{line.port}",))
        async with EtcdStore(config) as cut_off:
            first = await write(store, Put(prefix, b"1"))
            async with cut_off.watch(prefix, start_revision=first) as watch:
                await take(watch)
                await line.cut()
                await wait_connected(watch, connected=False)
                await write(store, Put(prefix, b"2"))
                last = await write(store, Put(prefix, b"3"))
                await compact_etcd(single.endpoints[0], last)
                await line.open()
                with pytest.raises(Compacted):
                    await take(watch)
            snapshot = await cut_off.range(prefix)
            async with cut_off.watch(prefix, start_revision=snapshot.revision + 1) as again:
                revision = await write(store, Put(prefix, b"4"))
                assert (await take(again)).revision == revision


async def test_an_etcd_that_lost_its_data_is_said(tmp_path: Path, prefix: str) -> None:
    timing = WatchTiming(probe_after=0.2, silent_after=2)
    with EtcdCluster(tmp_path, arguments=QUICK) as etcd:
        await healthy(etcd)
        async with EtcdStore(EtcdConfig(endpoints=etcd.endpoints, watch=timing)) as store:
            for _ in range(3):
                revision = await write(store, Put(prefix, b""))
            async with store.watch(prefix, start_revision=revision) as watch:
                await take(watch)
                etcd.members[0].kill()
                await asyncio.to_thread(shutil.rmtree, etcd.members[0].data_directory)
                etcd.start()
                await healthy(etcd)
                with pytest.raises(HistoryReplaced) as caught:
                    await take(watch)
                assert caught.value.seen >= revision > caught.value.revision


async def test_a_watch_over_a_flaky_line_misses_and_repeats_nothing(
    single: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    async with TcpLine(single.members[0].client_port) as line:
        config = EtcdConfig(endpoints=(f"127.0.0.1:{line.port}",))
        async with EtcdStore(config) as cut_off:
            start = (await write(store, Put(prefix, b""))) + 1
            written: list[int] = []
            read: list[int] = []
            async with cut_off.watch(prefix, start_revision=start) as watch:
                for _ in range(6):
                    puts = (write(store, Put(prefix, b"x" * 2000)) for _ in range(20))
                    written.extend(sorted(await asyncio.gather(*puts)))
                    events = (await take(watch)).events  # mid-way, not everything
                    read.extend(event.revision for event in events)
                    await line.cut()
                    await line.open()
                while not read or read[-1] < written[-1]:
                    read.extend(event.revision for event in (await take(watch)).events)
            assert read == written


async def test_a_slow_reader_gets_everything(
    single: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    """The queue is short; what does not fit waits in etcd."""
    start = (await write(store, Put(prefix, b""))) + 1
    async with store.watch(prefix, start_revision=start) as watch:
        await wait_connected(watch)
        written = [await write(store, Put(prefix, b"x" * 50_000)) for _ in range(100)]
        events = await take_until(watch, written[-1])
    assert [event.revision for event in events] == written


async def test_closing_is_quick_while_etcd_is_frozen(single: EtcdCluster, prefix: str) -> None:
    store = EtcdStore(EtcdConfig(endpoints=single.endpoints))
    await store.get(prefix)
    watch = store.watch(prefix, start_revision=1)
    await wait_connected(watch)
    single.members[0].freeze()
    reading = asyncio.ensure_future(store.get(prefix, timeout=60))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await store.close()
        with pytest.raises(Unreachable):  # and not CancelledError: nobody cancelled this task
            await reading
