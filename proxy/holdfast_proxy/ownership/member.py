"""This proxy's own membership: its lease, its registration, and when it must stop to act.

One lease per proxy, renewed every fifth of its time to live. ``proxies/<id>`` is put once a term
and never again, so its mod revision names the term, and every claim compares it. The config key
is compared before anything is written: proxies that disagree would own the same kernels by
different rules. Knows the store and the clock; must not know kernels.

A process that stood still (SIGSTOP, a frozen machine) finds, before anything else, that
``fence_at`` has passed. Requests that waited in its socket meanwhile are as old as the pause
and nothing tells them from new ones, so for a moment after a pause (``held_up``) it refuses what
has an effect; clients ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum

import structlog

from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import FENCE_MARGIN, Lease
from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.records import ConfigRecord, ProxyRecord
from holdfast_proxy.errors import Unavailable
from holdfast_proxy.ownership.background import TaskSet
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.store.contract import KeyValue, ModEquals, Put, Store
from holdfast_proxy.store.errors import LeaseLost, NoAnswer, StoreError

_log = structlog.get_logger(__name__)

#: Seconds between looks at the clock; a longer gap than the fence allows was a pause.
_TICK = 0.2
#: Seconds after a pause in which requests may be as old as the pause.
_DOUBT = 1.0


class Standing(Enum):
    """What this proxy is in the cluster."""

    JOINING = "joining"  # never had a lease
    HOLDING = "holding"
    FENCED = "fenced"  # fence_at has passed: no start, delete, claim or write
    SUPERSEDED = "superseded"  # another process has registered with our id
    REFUSED = "refused"  # the cluster's config disagrees with ours
    LEFT = "left"  # drained


class ConfigMismatch(Exception):
    """The cluster runs by another mode; this proxy must not join it."""


class Member:
    """Holds and shows this proxy's membership."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        proxy_id: str,
        record: ProxyRecord,
        mode: str,
        ttl: float,
        clock: Clock,
    ) -> None:
        self.proxy_id = proxy_id
        self.record = record
        self.era = 0
        self._store = store
        self._keys = keys
        self._mode = mode
        self._ttl = ttl
        self._clock = clock
        self._lease: Lease | None = None
        self._registration = 0
        self._registered_before = False
        self._final: Standing | None = None
        self._ticked = clock.now()
        self._doubt_until = 0.0
        self._listeners: list[Callable[[], Awaitable[None]]] = []

    def __repr__(self) -> str:
        return f"<Member {self.proxy_id} {self.standing.value} registration={self._registration}>"

    # --- what others ask, all of it synchronous ---

    @property
    def standing(self) -> Standing:
        if self._final is not None:
            return self._final
        if self._lease is not None and self._registration:
            holds = self._lease.holds(self._clock.now())
            return Standing.HOLDING if holds else Standing.FENCED
        return Standing.FENCED if self._registered_before else Standing.JOINING

    @property
    def holds(self) -> bool:
        """Check right before each send: between check and send nothing may be awaited."""
        return self.standing is Standing.HOLDING

    @property
    def lease_id(self) -> int:
        """The lease for keys of ours. Raises Unavailable when it may have ended."""
        self.require()
        assert self._lease is not None
        return self._lease.lease_id

    @property
    def compare(self) -> ModEquals:
        """Holds while this term of ours stands; every claim carries it. Raises Unavailable."""
        self.require()
        return ModEquals(self._keys.of(Kind.PROXY, self.proxy_id), self._registration)

    @property
    def lease_age(self) -> float | None:
        """Seconds since the last renewal was sent that etcd has answered; None without a lease."""
        if self._lease is None:
            return None
        sent_at = self._lease.fence_at + FENCE_MARGIN - self._ttl
        return max(0.0, self._clock.now() - sent_at)

    @property
    def registration(self) -> int:
        """The revision that names this term; 0 for none."""
        return self._registration

    @property
    def held_up(self) -> bool:
        """The process stood still until a moment ago: what it reads now may be old."""
        now = self._clock.now()
        return now - self._ticked > self._ttl - FENCE_MARGIN or now < self._doubt_until

    def require(self) -> None:
        """Raises Unavailable unless we hold our lease and were not held up."""
        if self.standing is not Standing.HOLDING:
            raise Unavailable(
                f"this proxy is {self.standing.value}: it has no lease in etcd, so it may not "
                "start or delete kernels; open notebooks go on",
                retry_after=1.0,
            )
        if self.held_up:
            raise Unavailable("this proxy stood still until a moment ago; ask again")

    def on_joined(self, listener: Callable[[], Awaitable[None]]) -> None:
        """``listener`` runs after each new registration."""
        self._listeners.append(listener)

    # --- the loop ---

    def begin(self, tasks: TaskSet) -> None:
        tasks.spawn(self._watch_clock(), name="member clock")
        tasks.spawn(self._run(), name="member lease")

    async def _watch_clock(self) -> None:
        while True:
            now = self._clock.now()
            if now - self._ticked > self._ttl - FENCE_MARGIN:
                self._doubt_until = now + _DOUBT
                _log.warning("this process stood still", seconds=round(now - self._ticked, 1))
            self._ticked = now
            await asyncio.sleep(_TICK)

    async def _run(self) -> None:
        while self._final in (None, Standing.REFUSED, Standing.SUPERSEDED):
            wait = self._ttl / 5
            try:
                await self.step()
            except LeaseLost:
                self._lose("the lease has expired")
                wait = 0.0
            except NoAnswer as error:
                _log.debug("no answer from etcd", error=str(error))
                wait = min(wait, 0.25)
            except ConfigMismatch as error:
                _log.error("cannot join", error=str(error))
            except (StoreError, RecordError) as error:
                _log.error("membership failed; trying again", error=str(error))
            await asyncio.sleep(wait)

    async def step(self) -> None:
        """Renew, or join when there is nothing to renew. Raises StoreError, ConfigMismatch."""
        if self._lease is None or not self._registration:
            await self._join()
        else:
            await self._renew(self._lease)

    async def _renew(self, lease: Lease) -> None:
        sent_at = self._clock.now()
        ttl = await self._store.lease_keepalive(lease.lease_id, timeout=max(1.0, self._ttl / 5))
        if self._lease is not None and self._lease.lease_id == lease.lease_id:
            self._lease = self._lease.renewed(sent_at=sent_at, ttl=ttl)

    def _lose(self, why: str) -> None:
        _log.warning("membership lost", why=why, proxy=self.proxy_id)
        self._lease = None
        self._registration = 0

    async def _join(self) -> None:
        await self._agree()
        sent_at = self._clock.now()
        lease_id = await self._store.lease_grant(self._ttl, timeout=2.0)
        lease = Lease.granted(lease_id, sent_at=sent_at, ttl=self._ttl)
        registration = await self._register(lease_id)
        if registration is None:
            await self._store.lease_revoke(lease_id, timeout=2.0)
            return
        self._lease, self._registration, self._final = lease, registration, None
        self._registered_before = True
        _log.info("joined the cluster", proxy=self.proxy_id, registration=registration)
        for listener in self._listeners:
            await listener()

    async def _agree(self) -> None:
        """Compare the config key, or write it when we are the first. Raises ConfigMismatch."""
        mine = ConfigRecord(mode=self._mode, era=1)
        found = await self._store.get(self._keys.config, timeout=2.0)
        if found is None:
            await self._store.txn(
                [ModEquals(self._keys.config, 0)],
                [Put(self._keys.config, mine.encode())],
                timeout=2.0,
            )
            found = await self._store.get(self._keys.config, timeout=2.0)
        theirs = mine if found is None else ConfigRecord.decode(found.value)
        if found is not None and theirs.mode != self._mode:
            theirs = await self._switched(found, theirs)
        self.era = theirs.era

    async def _switched(self, found: KeyValue, theirs: ConfigRecord) -> ConfigRecord:
        """The config with our mode, when no proxy runs by the other. Raises ConfigMismatch.

        A proxy of the other mode that registers at the same moment sees the change in its watch
        and leaves (``config_changed``); until then fencing tokens keep both harmless.
        """
        others = await self._store.range(self._keys.all_of(Kind.PROXY), timeout=2.0)
        switched = replace(theirs, mode=self._mode)
        if not list(others):
            result = await self._store.txn(
                [ModEquals(self._keys.config, found.mod_revision)],
                [Put(self._keys.config, switched.encode())],
                timeout=2.0,
            )
            if result.succeeded:
                _log.warning("the cluster's mode was changed", now=self._mode, before=theirs.mode)
                return switched
        self._final = Standing.REFUSED
        raise ConfigMismatch(
            f"the cluster runs in mode {theirs.mode!r} and this proxy is configured for "
            f"{self._mode!r}: give all proxies the same mode. To change it, stop them all first"
        )

    def config_changed(self, theirs: ConfigRecord) -> None:
        """The watch saw the cluster's config. Another mode: leave. A higher era (after etcd was
        restored): join anew, so that everything owned is claimed with tokens of that era."""
        if self._final is not None or not self._registration:
            return
        if theirs.mode != self._mode:
            self._lose(f"the cluster now runs in mode {theirs.mode!r}")
            self._final = Standing.REFUSED
        elif theirs.era > self.era:
            self._lose(f"the cluster's era is {theirs.era} now")

    async def _register(self, lease_id: int) -> int | None:
        """Put our key under ``lease_id``; its revision, or None when another process has it.

        Only a fresh process replaces another's registration (it was restarted, and the old
        lease still stands); one that had been registered and was replaced yields, otherwise two
        processes with one id would throw each other out for ever.
        """
        key = self._keys.of(Kind.PROXY, self.proxy_id)
        for _ in range(5):
            seen = await self._store.get(key, timeout=2.0)
            if seen is not None and not self._may_replace(seen):
                if self._final is not Standing.SUPERSEDED:
                    _log.error("another process has registered with this id", proxy=self.proxy_id)
                self._final = Standing.SUPERSEDED
                return None
            observed = 0 if seen is None else seen.mod_revision
            value = self.record.encode()
            result = await self._store.txn(
                [ModEquals(key, observed)], [Put(key, value, lease_id)], timeout=2.0
            )
            if result.succeeded:
                return result.revision
        return None

    def _may_replace(self, seen: KeyValue) -> bool:
        if not self._registered_before:
            return True
        try:
            return ProxyRecord.decode(seen.value).boot_id == self.record.boot_id
        except RecordError:
            return False

    def registration_changed(self, revision: int, boot_id: str | None) -> None:
        """The watch saw our own key: ``boot_id`` None when it is gone."""
        if self._final is not None or not self._registration or revision <= self._registration:
            return
        self._lose("our registration was " + ("deleted" if boot_id is None else "replaced"))
        if boot_id not in (None, self.record.boot_id):
            self._final = Standing.SUPERSEDED
            _log.error("another process has registered with this id", proxy=self.proxy_id)

    async def leave(self) -> None:
        """Revoke the lease, which ends the registration and what is left under it."""
        lease, self._final = self._lease, Standing.LEFT
        self._lease, self._registration = None, 0
        if lease is not None:
            try:
                await self._store.lease_revoke(lease.lease_id, timeout=2.0)
            except StoreError as error:
                _log.warning("the lease could not be revoked; it expires", error=str(error))
