"""The in-memory twin of etcd: one `MemoryServer`, any number of `MemoryStore` clients of it.

It keeps the same contract as `etcd.EtcdStore` and passes the same suite, so that what stands on
a `Store` is tested in milliseconds, several proxies against one server, each fault at the call
where it hurts: set ``store.link`` for all calls from now on, or ``store.next_links`` for the next
ones. It is not for production: nothing is written to disk.

Leases run on the clock that the server was given; with one of your own, call `MemoryServer.tick`
after moving it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from holdfast_proxy.store.contract import (
    Compare,
    CreateEquals,
    Delete,
    Deleted,
    DeletePrefix,
    Event,
    Found,
    Get,
    KeyValue,
    Member,
    ModEquals,
    Op,
    Put,
    Response,
    Snapshot,
    Store,
    Stored,
    StoreStatus,
    TxnResult,
    ValueEquals,
    Watch,
    WatchBatch,
)
from holdfast_proxy.store.errors import Compacted, LeaseLost, Misuse, Unknown, Unreachable
from holdfast_proxy.store.validation import (
    check_key,
    check_lease,
    check_start,
    check_ttl,
    check_txn,
)

T = TypeVar("T")


@dataclass(slots=True)
class _Lease:
    ttl: int
    expires: float


class MemoryServer:
    """The state that etcd's members agree on. Synchronous: each method is one atomic step."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kvs: dict[str, KeyValue] = {}
        self._history: list[Event] = []
        self._leases: dict[int, _Lease] = {}
        self._last_lease = 0
        self._compacted = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self.revision = 1

    def __repr__(self) -> str:
        return (
            f"<MemoryServer revision={self.revision} keys={len(self._kvs)} "
            f"leases={len(self._leases)} compacted={self._compacted}>"
        )

    def get(self, key: str) -> KeyValue | None:
        self.tick()
        return self._kvs.get(key)

    def range(self, prefix: str) -> Snapshot:
        self.tick()
        keys = sorted(key for key in self._kvs if key.startswith(prefix))
        return Snapshot(tuple(self._kvs[key] for key in keys), self.revision)

    def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]
    ) -> TxnResult:
        self.tick()
        succeeded = all(self._holds(compare) for compare in compares)
        branch = then if succeeded else otherwise
        for op in branch:  # before anything is changed: all or nothing
            if isinstance(op, Put) and op.lease and op.lease not in self._leases:
                raise LeaseLost(op.lease)
        events: list[Event] = []
        responses = tuple(self._apply(op, events) for op in branch)
        self._commit(events)
        return TxnResult(succeeded, self.revision, responses)

    def events(self, prefix: str, start_revision: int) -> list[Event]:
        """Raises `Compacted` when some of them may be gone."""
        self.tick()
        if start_revision <= self._compacted:
            raise Compacted(self._compacted)
        return [
            event
            for event in self._history
            if event.revision >= start_revision and event.key.startswith(prefix)
        ]

    def changed(self) -> asyncio.Future[None]:
        """Done after the next change. Registered at once, so that none slips in between."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)
        return waiter

    def notify(self) -> None:
        """Make every watch look again."""
        for waiter in list(self._waiters):
            if not waiter.done():
                waiter.set_result(None)

    def compact(self, revision: int) -> None:
        """Forget the history up to and including ``revision``, as an operator's compaction."""
        if not self._compacted < revision <= self.revision:
            raise Misuse(f"cannot compact to {revision}: {self!r}")
        self._compacted = revision
        self._history = [event for event in self._history if event.revision > revision]
        self.notify()

    def grant(self, ttl: float) -> int:
        self._last_lease += 1
        seconds = math.ceil(ttl)
        self._leases[self._last_lease] = _Lease(seconds, self._clock() + seconds)
        self._tick_in(seconds)
        return self._last_lease

    def keepalive(self, lease: int) -> float:
        self.tick()
        found = self._leases.get(lease)
        if found is None:
            raise LeaseLost(lease)
        found.expires = self._clock() + found.ttl
        self._tick_in(found.ttl)
        return float(found.ttl)

    def revoke(self, lease: int) -> None:
        if self._leases.pop(lease, None) is None:
            return
        events: list[Event] = []
        for key in sorted(key for key, kv in self._kvs.items() if kv.lease == lease):
            self._apply(Delete(key), events)
        self._commit(events)

    def tick(self) -> None:
        """Expire the leases whose time has come; called by every operation and by a timer."""
        now = self._clock()
        for lease in [lease for lease, state in self._leases.items() if state.expires <= now]:
            self.revoke(lease)

    def _tick_in(self, seconds: float) -> None:
        """So that watchers hear of an expiry when nobody calls."""
        with contextlib.suppress(RuntimeError):  # no running loop: then nobody watches either
            asyncio.get_running_loop().call_later(seconds + 0.01, self.tick)

    def _holds(self, compare: Compare) -> bool:
        kv = self._kvs.get(compare.key)
        match compare:
            case ModEquals(_, revision):
                return (kv.mod_revision if kv else 0) == revision
            case CreateEquals(_, revision):
                return (kv.create_revision if kv else 0) == revision
            case ValueEquals(_, value):
                return kv is not None and kv.value == value

    def _apply(self, op: Op, events: list[Event]) -> Response:
        revision = self.revision + 1
        match op:
            case Get(key):
                return Found(self._kvs.get(key))
            case Put(key, value, lease):
                old = self._kvs.get(key)
                if old is None:
                    kv = KeyValue(key, value, revision, revision, 1, lease)
                else:
                    kv = replace(
                        old,
                        value=value,
                        mod_revision=revision,
                        version=old.version + 1,
                        lease=lease,
                    )
                self._kvs[key] = kv
                events.append(Event(key, revision, kv))
                return Stored()
            case Delete(key):
                gone = [key] if key in self._kvs else []
            case DeletePrefix(prefix):
                gone = sorted(key for key in self._kvs if key.startswith(prefix))
        for key in gone:
            del self._kvs[key]
            events.append(Event(key, revision, None))
        return Deleted(len(gone))

    def _commit(self, events: list[Event]) -> None:
        if events:
            self.revision += 1
            self._history.extend(events)
            self.notify()


class Link(Enum):
    """What becomes of a `MemoryStore`'s calls. Its watches deliver only while the link is up."""

    UP = "up"
    REFUSED = "refused"  #: Unreachable: nothing was applied
    REQUEST_LOST = "request lost"  #: not applied, and the caller cannot know: Unknown
    ANSWER_LOST = "answer lost"  #: applied, and the caller cannot know: Unknown


class MemoryStore(Store):
    """One client of a `MemoryServer`; ``link`` and ``next_links`` are its faults."""

    def __init__(self, server: MemoryServer | None = None) -> None:
        self.server = server or MemoryServer()
        self.next_links: deque[Link] = deque()
        self._link = Link.UP
        self._closed = False
        self._watches: set[MemoryWatch] = set()

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._link.value
        return f"<MemoryStore {state} watches={len(self._watches)} of {self.server!r}>"

    @property
    def link(self) -> Link:
        """What becomes of the calls that ``next_links`` (used up first) says nothing about."""
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = link
        self.server.notify()

    async def get(
        self, key: str, *, serializable: bool = False, timeout: float | None = None
    ) -> KeyValue | None:
        check_key(key)
        return await self._call(lambda: self.server.get(key), writes=False)

    async def range(
        self, prefix: str, *, serializable: bool = False, timeout: float | None = None
    ) -> Snapshot:
        check_key(prefix)
        return await self._call(lambda: self.server.range(prefix), writes=False)

    async def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Op],
        otherwise: Sequence[Op] = (),
        *,
        unconditional: bool = False,
        timeout: float | None = None,
    ) -> TxnResult:
        check_txn(compares, then, otherwise, unconditional=unconditional)
        return await self._call(lambda: self.server.txn(compares, then, otherwise), writes=True)

    def watch(self, prefix: str, *, start_revision: int) -> MemoryWatch:
        self._check_open()
        check_key(prefix)
        check_start(start_revision)
        watch = MemoryWatch(self, prefix, start_revision)
        self._watches.add(watch)
        return watch

    async def lease_grant(self, ttl: float, *, timeout: float | None = None) -> int:
        check_ttl(ttl)
        return await self._call(lambda: self.server.grant(ttl), writes=True)

    async def lease_keepalive(self, lease: int, *, timeout: float | None = None) -> float:
        check_lease(lease)
        return await self._call(lambda: self.server.keepalive(lease), writes=True)

    async def lease_revoke(self, lease: int, *, timeout: float | None = None) -> None:
        check_lease(lease)
        await self._call(lambda: self.server.revoke(lease), writes=True)

    async def status(self, *, timeout: float | None = None) -> StoreStatus:
        member = Member(1, "memory", (), ())
        return await self._call(
            lambda: StoreStatus("memory", 1, 1, "memory", 0, (member,)), writes=False
        )

    async def close(self) -> None:
        self._closed = True
        for watch in list(self._watches):
            await watch.aclose()

    def forget(self, watch: MemoryWatch) -> None:
        self._watches.discard(watch)

    async def _call(self, step: Callable[[], T], *, writes: bool) -> T:
        """Yields before and after the step, as a call over a wire does."""
        self._check_open()
        link = self.next_links.popleft() if self.next_links else self._link
        await asyncio.sleep(0)
        if link is Link.REFUSED or (link is not Link.UP and not writes):
            raise Unreachable("the memory store's link is cut")
        if link is Link.REQUEST_LOST:
            raise Unknown("the memory store's link lost the request")
        result = step()
        await asyncio.sleep(0)
        if link is Link.ANSWER_LOST:
            raise Unknown("the memory store's link lost the answer")
        return result

    def _check_open(self) -> None:
        if self._closed:
            raise Misuse("the store is closed")


class MemoryWatch(Watch):
    """Reads the server's history from its own position whenever the link is up."""

    def __init__(self, store: MemoryStore, prefix: str, start_revision: int) -> None:
        self._store = store
        self._prefix = prefix
        self._position = start_revision
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self.connected else "cut"
        return f"<MemoryWatch {self._prefix} from {self._position} {state}>"

    @property
    def connected(self) -> bool:
        return not self._closed and self._store.link is Link.UP

    async def __anext__(self) -> WatchBatch:
        while True:
            if self._closed:
                raise StopAsyncIteration
            if self.connected:
                batch = self._take()
                if batch is not None:
                    return batch
            await self._store.server.changed()

    async def aclose(self) -> None:
        self._closed = True
        self._store.forget(self)
        self._store.server.notify()

    def _take(self) -> WatchBatch | None:
        try:
            events = self._store.server.events(self._prefix, self._position)
        except Compacted:
            self._closed = True
            self._store.forget(self)
            raise
        if not events:
            return None
        self._position = events[-1].revision + 1
        return WatchBatch(events[-1].revision, tuple(events))
