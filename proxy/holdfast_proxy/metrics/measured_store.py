"""A store that counts and times what it passes on.

Around any ``Store``; every answer and every error goes through unchanged. The lag of the watch is
measured on this proxy's own writes, because those are the only ones of which it knows when they
were made: from etcd's answer to a transaction until a watch has delivered its revision. It must not
know what the keys mean.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from holdfast_proxy.metrics.figures import ProxyMetrics
from holdfast_proxy.store.contract import (
    Compare,
    KeyValue,
    Op,
    Put,
    Snapshot,
    Store,
    StoreStatus,
    TxnResult,
    Watch,
    WatchBatch,
)
from holdfast_proxy.store.errors import (
    Compacted,
    LeaseLost,
    Rejected,
    StoreError,
    Unknown,
    Unreachable,
)

#: Writes whose showing is waited for; what comes on top while a watch hangs adds nothing.
_WAITED_FOR: Final = 512
_KINDS: Final[dict[type[StoreError], str]] = {
    Unreachable: "unreachable",
    Unknown: "unknown",
    LeaseLost: "lease_lost",
    Compacted: "compacted",
    Rejected: "rejected",
}


class MeasuredStore(Store):
    """``clock``: seconds of any steady clock."""

    def __init__(
        self, store: Store, metrics: ProxyMetrics, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._unseen: deque[tuple[int, float]] = deque()
        self._shown = 0

    def __repr__(self) -> str:
        return f"<MeasuredStore {len(self._unseen)} unseen {self._store!r}>"

    @property
    def unseen_seconds(self) -> float:
        """How old the oldest write of ours is that no watch has shown; 0.0: all were."""
        return self._clock() - self._unseen[0][1] if self._unseen else 0.0

    def showed(self, revision: int) -> None:
        """A watch has delivered everything up to ``revision``."""
        now, self._shown = self._clock(), revision
        while self._unseen and self._unseen[0][0] <= revision:
            self._metrics.watch_lag.observe(now - self._unseen.popleft()[1])

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        began = self._clock()
        try:
            yield
        except StoreError as error:
            for kind, word in _KINDS.items():
                if isinstance(error, kind):
                    self._metrics.etcd_failures.labels(word).inc()
                    break
            raise
        finally:
            self._metrics.etcd_calls.labels(operation).observe(self._clock() - began)

    async def get(
        self, key: str, *, serializable: bool = False, timeout: float | None = None
    ) -> KeyValue | None:
        with self._timed("get"):
            return await self._store.get(key, serializable=serializable, timeout=timeout)

    async def range(
        self, prefix: str, *, serializable: bool = False, timeout: float | None = None
    ) -> Snapshot:
        with self._timed("range"):
            return await self._store.range(prefix, serializable=serializable, timeout=timeout)

    async def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Op],
        otherwise: Sequence[Op] = (),
        *,
        unconditional: bool = False,
        timeout: float | None = None,
    ) -> TxnResult:
        with self._timed("txn"):
            result = await self._store.txn(
                compares, then, otherwise, unconditional=unconditional, timeout=timeout
            )
        # A delete may find nothing and make no revision; a put always makes one.
        wrote = any(isinstance(op, Put) for op in (then if result.succeeded else otherwise))
        if wrote and result.revision <= self._shown:
            self._metrics.watch_lag.observe(0.0)  # the watch was quicker than the answer
        elif wrote and len(self._unseen) < _WAITED_FOR:
            self._unseen.append((result.revision, self._clock()))
        return result

    def watch(self, prefix: str, *, start_revision: int) -> Watch:
        # What was written before is in the list that this watch follows.
        self.showed(start_revision - 1)
        self._metrics.watches.inc()
        return _MeasuredWatch(self, self._store.watch(prefix, start_revision=start_revision))

    async def lease_grant(self, ttl: float, *, timeout: float | None = None) -> int:
        with self._timed("lease_grant"):
            return await self._store.lease_grant(ttl, timeout=timeout)

    async def lease_keepalive(self, lease: int, *, timeout: float | None = None) -> float:
        with self._timed("lease_keepalive"):
            return await self._store.lease_keepalive(lease, timeout=timeout)

    async def lease_revoke(self, lease: int, *, timeout: float | None = None) -> None:
        with self._timed("lease_revoke"):
            await self._store.lease_revoke(lease, timeout=timeout)

    async def status(self, *, timeout: float | None = None) -> StoreStatus:
        with self._timed("status"):
            return await self._store.status(timeout=timeout)

    async def close(self) -> None:
        await self._store.close()


class _MeasuredWatch(Watch):
    def __init__(self, store: MeasuredStore, watch: Watch) -> None:
        self._store = store
        self._watch = watch

    def __repr__(self) -> str:
        return f"<measured {self._watch!r}>"

    @property
    def connected(self) -> bool:
        return self._watch.connected

    async def __anext__(self) -> WatchBatch:
        batch = await self._watch.__anext__()
        self._store.showed(batch.revision)
        return batch

    async def aclose(self) -> None:
        await self._watch.aclose()
