"""The timeline: takeovers, starts, deaths and deletions as lines in etcd, kept for a day.

Best effort and cheap: lines wait in a short queue and are dropped when etcd is away for long.
One lease of 24 h is shared by an hour's lines.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog

from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.records import EventRecord
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.store.contract import ModEquals, Put, Store
from holdfast_proxy.store.errors import LeaseLost, NoAnswer, StoreError

_log = structlog.get_logger(__name__)

#: Seconds that a line is kept.
_KEEP = 86_400.0
#: Seconds for which one lease takes new lines.
_LEASE_FOR = 3_600.0
_QUEUED = 256


class Timeline:
    """Writes what happened to ``events/``."""

    def __init__(self, *, store: Store, keys: Keys, proxy_id: str, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._proxy_id = proxy_id
        self._clock = clock
        self._queue: deque[tuple[str, EventRecord]] = deque(maxlen=_QUEUED)
        self._more = asyncio.Event()
        self._written = asyncio.Event()
        self._count = 0
        self._lease = 0
        self._lease_since = 0.0

    def __repr__(self) -> str:
        return f"<Timeline: {len(self._queue)} lines to write>"

    @property
    def now(self) -> str:
        """The wall clock, as lines have it."""
        return self._clock.stamp()

    @property
    def pending(self) -> list[tuple[str, EventRecord]]:
        """(name, line) of what etcd does not have yet, oldest first."""
        return [(name, record) for name, record in self._queue]

    def note(
        self,
        kind: str,
        kernel_id: str | None = None,
        detail: str = "",
        *,
        proxy_id: str | None = None,
        launcher_id: str | None = None,
        facts: Mapping[str, Any] | None = None,
        mark: str | None = None,
        at: str | None = None,
    ) -> None:
        """Queue one line (see ``EventRecord``); never blocks. It must hold no secret. ``at``: when
        it happened, if that is not now."""
        self._count += 1
        self._written.clear()
        name = f"{int(self._clock.wall() * 1000):014d}-{self._proxy_id}-{self._count}"
        record = EventRecord(
            kind=kind,
            at=at or self._clock.stamp(),
            proxy_id=proxy_id or self._proxy_id,
            kernel_id=kernel_id,
            detail=detail[:500],
            launcher_id=launcher_id,
            facts=facts or {},
            mark=mark,
        )
        self._queue.append((name, record))
        self._more.set()

    async def run(self) -> None:
        """Write queued lines, for ever."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._queue:
                try:
                    await self._write(*self._queue[0])
                except LeaseLost:
                    self._lease = 0
                    continue
                except NoAnswer:
                    await asyncio.sleep(1.0)
                    continue
                except StoreError as error:
                    _log.warning("a line of the timeline is lost", error=str(error))
                if self._queue:
                    self._queue.popleft()
            self._written.set()

    async def flush(self, timeout: float) -> None:
        """Return when everything noted so far is written, or after ``timeout`` seconds."""
        if not self._queue:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._written.wait()

    async def _write(self, name: str, record: EventRecord) -> None:
        key, now = self._keys.of(Kind.EVENT, name), self._clock.now()
        if not self._lease or now - self._lease_since > _LEASE_FOR:
            self._lease = await self._store.lease_grant(_KEEP)
            self._lease_since = now
        await self._store.txn([ModEquals(key, 0)], [Put(key, record.encode(), self._lease)])
