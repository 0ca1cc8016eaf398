"""One overview for all who look: computed at most once a second, whoever asks and however often.

``Snapshots`` answers requests; ``Feed`` pushes to subscribers while there are any. A subscriber
that reads slowly misses versions in between, never memory: each has room for one. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ...errors import ProxyError, Unavailable
from ...overview import Overview

#: Seconds for which an overview is good, and between two versions that are pushed.
FRESH_SECONDS: Final = 0.9
PUSH_SECONDS: Final = 1.0
#: Lines of the timeline in what is pushed, and in an answer that names no number.
PUSHED_LINES: Final = 200
MOST_SUBSCRIBERS: Final = 64
_log: Final = structlog.get_logger("holdfast.admin")


class Snapshots:
    """The newest overview; callers at the same time share one look."""

    def __init__(
        self, look: Callable[[], Awaitable[Overview]], *, clock: Callable[[], float]
    ) -> None:
        self._look = look
        self._clock = clock
        self._at = float("-inf")
        self._overview: Overview | None = None
        self._looking: asyncio.Task[Overview] | None = None

    def __repr__(self) -> str:
        return f"<Snapshots, {'looking' if self._looking else 'at rest'}>"

    async def get(self) -> Overview:
        """An overview that is at most a second old. Raises what the look raises."""
        if self._overview is not None and self._clock() - self._at < FRESH_SECONDS:
            return self._overview
        if self._looking is None:
            self._looking = asyncio.create_task(self._refresh(), name="overview")
            self._looking.add_done_callback(self._looked)
        # A caller that leaves must not take the others' answer with it.
        return await asyncio.shield(self._looking)

    async def _refresh(self) -> Overview:
        self._overview = await self._look()
        self._at = self._clock()
        return self._overview

    def _looked(self, task: asyncio.Task[Overview]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # its callers have it; with none left it is nobody's


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the document, as it is pushed."""

    number: int
    data: bytes


class Subscriber:
    """The newest version that one reader has not taken yet."""

    def __init__(self) -> None:
        self._version: Version | None = None
        self._there = asyncio.Event()

    def put(self, version: Version) -> None:
        self._version = version
        self._there.set()

    async def next(self, timeout: float) -> Version | None:
        """The next version, or None when none came in ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._there.wait()
        except TimeoutError:
            return None
        self._there.clear()
        return self._version


class Feed:
    """Looks once a second while anybody subscribes, and tells all of them what changed."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._subscribers: set[Subscriber] = set()
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        self._last: dict[str, Any] = {}
        self._version: Version | None = None

    def __repr__(self) -> str:
        return f"<Feed {len(self._subscribers)} subscribers, version {self._number}>"

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Subscriber]:
        """A subscriber for the length of the block; it has the present version soon.

        Raises Unavailable when there are too many.
        """
        if len(self._subscribers) >= MOST_SUBSCRIBERS:
            raise Unavailable(
                f"{MOST_SUBSCRIBERS} pages look at this proxy already; look at another one",
                retry_after=10.0,
            )
        subscriber = Subscriber()
        self._subscribers.add(subscriber)
        if self._task is None:
            self._version = None
            self._task = asyncio.create_task(self._run(), name="cluster feed")
        elif self._version is not None:
            subscriber.put(self._version)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)
            if not self._subscribers:
                await self.close()

    async def close(self) -> None:
        """Stop looking. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                self._push(await self._snapshots.get())
            except ProxyError as error:
                _log.debug("no overview", error=error.message)
            except Exception:
                # One bad look must not end the feed of all who watch.
                _log.exception("the overview failed")
            await asyncio.sleep(PUSH_SECONDS)

    def _push(self, overview: Overview) -> None:
        document = overview.document(timeline=PUSHED_LINES)
        changing = lasting_part(document)
        if self._version is not None and changing == self._last:
            return
        self._last = changing
        self._number += 1
        self._version = Version(self._number, encode(document))
        for subscriber in self._subscribers:
            subscriber.put(self._version)


def lasting_part(document: dict[str, Any]) -> dict[str, Any]:
    """A document without what differs at every look though nothing happened. Pure."""
    etcd = {**document["etcd"], "lease_age": None}
    launchers = [{**launcher, "last_seen": None} for launcher in document["launchers"]]
    return {**document, "time": None, "etcd": etcd, "launchers": launchers}


def encode(document: dict[str, Any]) -> bytes:
    """JSON on one line, as server-sent events need it."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()
