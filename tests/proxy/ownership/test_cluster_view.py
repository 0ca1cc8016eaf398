"""The view when the store's history is not what it was."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.records import OwnerRecord
from holdfast_proxy.ownership.cache import ClusterView
from holdfast_proxy.store.contract import Delete, ModEquals, Put
from holdfast_proxy.store.errors import HistoryReplaced
from holdfast_proxy.store.memory import MemoryServer, MemoryStore
from support.ownership_site import eventually

KEYS = Keys("test")


class Restored(MemoryStore):
    """Serves ``server`` until ``switch`` is set, then ``backup``, whose revisions are lower."""

    def __init__(self, server: MemoryServer, backup: MemoryServer) -> None:
        super().__init__(server)
        self.backup = MemoryStore(backup)
        self.switch = asyncio.Event()
        self.told = False

    async def range(self, *args: Any, **more: Any) -> Any:
        ask = self.backup.range if self.switch.is_set() else super().range
        return await ask(*args, **more)

    def watch(self, *args: Any, **more: Any) -> Any:
        return self.backup.watch(*args, **more) if self.told else _UntilReplaced(self)


class _UntilReplaced:
    def __init__(self, store: Restored) -> None:
        self.store = store

    async def __aenter__(self) -> _UntilReplaced:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def __aiter__(self) -> _UntilReplaced:
        return self

    async def __anext__(self) -> Any:
        await self.store.switch.wait()
        self.store.told = True
        raise HistoryReplaced(1, 9)


async def own(store: MemoryStore, kernel: str, proxy_id: str) -> None:
    key = KEYS.of(Kind.OWNER, kernel)
    found = await store.get(key)
    value = OwnerRecord(proxy_id=proxy_id, claim_id="c").encode()
    seen = 0 if found is None else found.mod_revision
    assert (await store.txn([ModEquals(key, seen)], [Put(key, value)])).succeeded


async def test_a_store_that_was_restored_is_believed() -> None:
    now, backup = MemoryServer(), MemoryServer()
    store = Restored(now, backup)
    await own(store.backup, "kept", "old")
    for _ in range(5):
        await own(store, "kept", "new")
    await own(store, "lost", "new")
    view = ClusterView(store=store, keys=KEYS)
    running = asyncio.create_task(view.run())
    try:
        await asyncio.wait_for(view.wait_synced(), 5)
        assert {name: e.record.proxy_id for name, e in view.owners.items()} == {
            "kept": "new",
            "lost": "new",
        }
        store.switch.set()
        await eventually(lambda: "lost" not in view.owners)
        assert view.owners["kept"].record.proxy_id == "old"
        await own(store.backup, "kept", "later")  # and it goes on from there
        await eventually(lambda: view.owners["kept"].record.proxy_id == "later")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_store_that_was_restored_between_two_lists_is_believed() -> None:
    now, backup = MemoryServer(), MemoryServer()
    store = Restored(now, backup)
    await own(store.backup, "restored", "old")
    for _ in range(5):
        await own(store, "lost", "new")
    view = ClusterView(store=store, keys=KEYS)
    await view._list()
    store.switch.set()
    await view._list()
    assert list(view.owners) == ["restored"]
    assert view.revision == backup.revision


async def test_a_write_that_is_answered_after_its_undoing_is_not_put_in() -> None:
    """The watch has brought the deletion; no event would ever take the key out again."""
    server = MemoryServer()
    store, view = MemoryStore(server), ClusterView(store=MemoryStore(server), keys=KEYS)
    await own(store, "k", "me")
    key = KEYS.of(Kind.OWNER, "k")
    written = await store.get(key)
    await store.txn([ModEquals(key, written.mod_revision)], [Delete(key)])
    await view._list()
    view.apply(written)
    assert view.owner("k") is None


async def test_a_record_that_could_not_be_read_and_went_hides_nothing_any_more() -> None:
    """A list of kernels is refused while one of them is unreadable."""
    server = MemoryServer()
    store, view = MemoryStore(server), ClusterView(store=MemoryStore(server), keys=KEYS)
    key = KEYS.of(Kind.KERNEL, "k")
    written = await store.txn([ModEquals(key, 0)], [Put(key, b"nonsense")])
    await view._list()
    assert view.unreadable_kernels == ["k"]
    await store.txn([ModEquals(key, written.revision)], [Delete(key)])
    await view._list()
    assert view.unreadable_kernels == []
