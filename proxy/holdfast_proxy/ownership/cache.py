"""What etcd holds of this cluster, kept in memory by one watch: the view that all reads use.

It lists, then watches from the list's revision + 1, and lists again when history was compacted;
through an outage it keeps what it had, which was in sync when the outage began. Entries only go
forward in revision, so our own writes may be put in at once (``apply``) and their events later
change nothing. Knows records and keys; must not know leases' meaning, HTTP or kernels' lifecycle.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

import structlog

from holdfast_protocol.errors import RecordError
from holdfast_protocol.kernel_records import KernelRecord, Tombstone, decode_kernel
from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.ownership import SeenOwner
from holdfast_protocol.records import (
    ActivityRecord,
    ConfigRecord,
    CredentialRecord,
    EventRecord,
    LauncherRecord,
    OwnerRecord,
    ProxyRecord,
)
from holdfast_proxy.store.contract import Get, KeyValue, ModEquals, Store
from holdfast_proxy.store.errors import Compacted, HistoryReplaced, NoAnswer, StoreError

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_DECODERS: Final[dict[Kind, Callable[[bytes], Any]]] = {
    Kind.PROXY: ProxyRecord.decode,
    Kind.OWNER: OwnerRecord.decode,
    Kind.LAUNCHER: LauncherRecord.decode,
    Kind.ACTIVITY: ActivityRecord.decode,
    Kind.CREDENTIAL: CredentialRecord.decode,
    Kind.KERNEL: decode_kernel,
    Kind.EVENT: EventRecord.decode,
    Kind.LEADER: OwnerRecord.decode,
    Kind.CONFIG: ConfigRecord.decode,
}


@dataclass(frozen=True, slots=True)
class Entry(Generic[_T]):
    """A record as it stood at ``revision`` (its mod revision), under ``lease`` (0: none)."""

    record: _T
    revision: int
    lease: int


@dataclass(frozen=True, slots=True)
class Change:
    """One key that changed. ``before``/``after`` None: it was, or is, absent."""

    kind: Kind
    name: str
    before: Entry[Any] | None
    after: Entry[Any] | None
    revision: int


Listener = Callable[[Change], None]


class ClusterView:
    """The cluster's keys in memory. Readers are synchronous."""

    def __init__(self, *, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._entries: dict[Kind, dict[str, Entry[Any]]] = {kind: {} for kind in _DECODERS}
        self._unreadable: dict[tuple[Kind, str], str] = {}
        self._deleted: dict[tuple[Kind, str], int] = {}
        self._listeners: list[Listener] = []
        self._revision = 0
        self._replaced = False
        self._synced = asyncio.Event()
        self._moved = asyncio.Condition()
        self._changed: dict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(items)} {kind.value}" for kind, items in self._entries.items())
        return f"<ClusterView at {self._revision}, {counts}>"

    # --- reading ---

    @property
    def synced(self) -> bool:
        """Everything was read at least once."""
        return self._synced.is_set()

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def proxies(self) -> dict[str, Entry[ProxyRecord]]:
        return self._entries[Kind.PROXY]

    @property
    def launchers(self) -> dict[str, Entry[LauncherRecord]]:
        return self._entries[Kind.LAUNCHER]

    @property
    def activity(self) -> dict[str, Entry[ActivityRecord]]:
        return self._entries[Kind.ACTIVITY]

    @property
    def credentials(self) -> dict[str, Entry[CredentialRecord]]:
        return self._entries[Kind.CREDENTIAL]

    @property
    def kernels(self) -> dict[str, Entry[KernelRecord | Tombstone]]:
        return self._entries[Kind.KERNEL]

    @property
    def events(self) -> dict[str, Entry[EventRecord]]:
        """The timeline, as bounded as ``history.narrator`` keeps it."""
        return self._entries[Kind.EVENT]

    @property
    def unreadable_kernels(self) -> list[str]:
        """Kernels whose record a newer program wrote, or that is damaged."""
        return [name for kind, name in self._unreadable if kind is Kind.KERNEL]

    def kernel(self, kernel_id: str) -> Entry[KernelRecord | Tombstone] | None:
        return self._entries[Kind.KERNEL].get(kernel_id)

    def owner(self, kernel_id: str) -> SeenOwner | None:
        entry = self._entries[Kind.OWNER].get(kernel_id)
        return None if entry is None else seen_owner(entry)

    @property
    def leader(self) -> SeenOwner | None:
        """The ``leader`` key (active-passive)."""
        entry = self._entries[Kind.LEADER].get(Kind.LEADER.value)
        return None if entry is None else seen_owner(entry)

    @property
    def owners(self) -> dict[str, Entry[OwnerRecord]]:
        return self._entries[Kind.OWNER]

    def listen(self, listener: Listener) -> None:
        """``listener`` is called for each change, synchronously; it must not block or raise."""
        self._listeners.append(listener)

    async def wait_synced(self) -> None:
        await self._synced.wait()

    async def wait_changed(self, kernel_id: str, timeout: float) -> None:
        """Until the kernel's record or owner changes, or ``timeout`` seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._changed[kernel_id]
        waiters.add(future)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            pass
        finally:
            waiters.discard(future)
            if not waiters:
                self._changed.pop(kernel_id, None)

    # --- linearizable reads, merged into the view ---

    async def read(self, kind: Kind, name: str) -> Entry[Any] | None:
        """One key by a linearizable read. Raises StoreError, RecordError."""
        found = await self._store.get(self._keys.of(kind, name), timeout=2.0)
        if found is None:
            return None
        self.apply(found)
        if (kind, name) in self._unreadable:
            raise RecordError(self._unreadable[kind, name])
        return self._entries[kind].get(name)

    async def read_owner(self, kernel_id: str) -> SeenOwner | None:
        """The owner key by a linearizable read. Raises StoreError, RecordError."""
        entry = await self.read(Kind.OWNER, kernel_id)
        return None if entry is None else seen_owner(entry)

    async def read_leader(self) -> SeenOwner | None:
        """The leader key by a linearizable read. Raises StoreError, RecordError."""
        entry = await self.read(Kind.LEADER, Kind.LEADER.value)
        return None if entry is None else seen_owner(entry)

    async def catch_up(self) -> None:
        """Hold every kernel that had been written when this was called. Raises StoreError.

        A transaction that writes nothing tells the store's revision; the watch has usually
        brought it already. Where it does not come soon (others write to the same store) the
        kernels are listed.
        """
        probe = await self._store.txn(
            [ModEquals(self._keys.config, 0)], [], [Get(self._keys.config)], timeout=1.0
        )
        try:
            async with asyncio.timeout(0.05), self._moved:
                await self._moved.wait_for(lambda: self._revision >= probe.revision)
        except TimeoutError:
            snapshot = await self._store.range(self._keys.all_of(Kind.KERNEL), timeout=2.0)
            for found in snapshot:
                self.apply(found)

    # --- writing into the view ---

    def apply(self, found: KeyValue) -> None:
        """A key as the store has it, or as we have just written it."""
        place = self._keys.parse(found.key)
        if place is None or place[0] not in _DECODERS:
            return
        kind, name = place
        before = self._entries[kind].get(name)
        known = max(self._deleted.get(place, 0), 0 if before is None else before.revision)
        if before is None and place not in self._unreadable:
            # All of the past is here, so it is gone again: our own write, answered late.
            known = max(known, self._revision)
        if found.mod_revision <= known:
            return
        try:
            record = _DECODERS[kind](found.value)
        except RecordError as error:
            _log.error("unreadable record", key=found.key, error=str(error))
            self._unreadable[place] = str(error)
            self._entries[kind].pop(name, None)
            return
        self._unreadable.pop(place, None)
        after = Entry(record, found.mod_revision, found.lease)
        self._entries[kind][name] = after
        self._tell(Change(kind, name, before, after, found.mod_revision))

    def remove(self, key: str, revision: int) -> None:
        """A key was deleted at ``revision``."""
        place = self._keys.parse(key)
        if place is None or place[0] not in _DECODERS:
            return
        kind, name = place
        before = self._entries[kind].get(name)
        self._unreadable.pop(place, None)
        if before is not None and before.revision > revision:
            return
        if revision > self._revision:
            self._deleted[place] = revision  # an event of its past may still come
        if before is not None:
            del self._entries[kind][name]
            self._tell(Change(kind, name, before, None, revision))

    def _tell(self, change: Change) -> None:
        if change.kind in (Kind.KERNEL, Kind.OWNER):
            for future in self._changed.get(change.name, ()):
                if not future.done():
                    future.set_result(None)
        for listener in self._listeners:
            listener(change)

    # --- the watch ---

    async def run(self) -> None:
        """List and watch for ever."""
        while True:
            try:
                await self._list()
                await self._follow()
            except NoAnswer as error:
                _log.debug("the cluster cannot be listed", error=str(error))
            except HistoryReplaced as error:
                self._replaced = True
                _log.error(
                    "etcd was restored from a backup or began anew: kernels refuse this cluster's "
                    "tokens until its era is raised",
                    error=str(error),
                )
            except Compacted:
                _log.info("history was compacted; listing again")
            except StoreError as error:
                _log.error("watching the cluster failed; trying again", error=str(error))
            await asyncio.sleep(0.2)

    async def _list(self) -> None:
        snapshot = await self._store.range(self._keys.prefix, timeout=5.0)
        if self._replaced or snapshot.revision < self._revision:
            self._begin_anew()  # also restored while nothing was watched
        present = {found.key for found in snapshot}
        for kind, entries in self._entries.items():
            for name in list(entries):
                key = self._keys.of(kind, name)
                if key not in present:
                    self.remove(key, snapshot.revision)
        for place in [place for place in self._unreadable if self._keys.of(*place) not in present]:
            del self._unreadable[place]
        for found in snapshot:
            self.apply(found)
        await self._reached(snapshot.revision)
        self._synced.set()

    def _begin_anew(self) -> None:
        """The store's revisions began again: what we had seen is older than whatever it says."""
        self._replaced = False
        self._revision = 0
        self._deleted.clear()
        for entries in self._entries.values():
            for name, entry in entries.items():
                entries[name] = replace(entry, revision=0)

    async def _follow(self) -> None:
        async with self._store.watch(self._keys.prefix, start_revision=self._revision + 1) as watch:
            async for batch in watch:
                for event in batch.events:
                    if event.kv is None:
                        self.remove(event.key, event.revision)
                    else:
                        self.apply(event.kv)
                await self._reached(batch.revision)

    async def _reached(self, revision: int) -> None:
        self._revision = max(self._revision, revision)
        for place, deleted in list(self._deleted.items()):
            if deleted <= self._revision:
                del self._deleted[place]
        async with self._moved:
            self._moved.notify_all()


def seen_owner(entry: Entry[OwnerRecord]) -> SeenOwner:
    return SeenOwner(entry.record.proxy_id, entry.record.claim_id, entry.revision)
