"""Where all streams' statuses come together and go out: rarely enough, and never in the way.

``publish`` is called from the event loop between other things, at most ``PER_SECOND`` times a
second over all streams and once in ``APART`` seconds for one; of several changes meanwhile
the last is what goes out. It must not know who listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from logging import Logger
from typing import Any, Final

from .status import StreamStatus

PER_SECOND: Final = 50
APART: Final = 0.5

#: (kernel id, session id)
Key = tuple[str, str]


def as_event(key: Key, status: StreamStatus, *, now: float, wall: datetime) -> dict[str, Any]:
    """The published form. ``now`` and ``wall`` are one moment on both clocks."""
    since = wall - timedelta(seconds=now - status.since)
    resumed = status.resumed
    return {
        "kernel_id": key[0],
        "session_id": key[1],
        "state": status.state.value,
        "reason": status.reason,
        "gateway": status.gateway,
        "since": since.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "resumed": None
        if resumed is None
        else {
            "seconds": round(resumed.seconds, 3),
            "recovered": resumed.recovered,
            "lost": resumed.lost,
        },
    }


class StatusBoard:
    """Takes statuses, hands them to ``publish``."""

    def __init__(self, publish: Callable[[dict[str, Any]], None], log: Logger) -> None:
        self._publish = publish
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Key, Callable[[], StreamStatus | None]] = {}
        self._last: dict[Key, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._free_at = 0.0
        self._failed = False

    def __repr__(self) -> str:
        return f"<StatusBoard {len(self._waiting)} waiting>"

    def changed(self, key: Key, take: Callable[[], StreamStatus | None]) -> None:
        """The status of ``key`` is to go out; ``take`` gives it, or None when it need not."""
        self._waiting[key] = take
        self._arm()

    def forget(self, key: Key) -> None:
        """The stream is gone: its last word goes out now."""
        if key in self._waiting:
            self._say(key)
        self._last.pop(key, None)

    def close(self) -> None:
        """Say what waits, without regard to rates, and stop. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for key in list(self._waiting):
            self._say(key)

    def _arm(self) -> None:
        if self._timer is not None or not self._waiting:
            return
        first = min(self._last.get(key, -APART) + APART for key in self._waiting)
        self._timer = self._loop.call_at(max(first, self._free_at), self._flush)

    def _flush(self) -> None:
        self._timer = None
        now = self._loop.time()
        ready = (key for key in self._waiting if self._last.get(key, -APART) + APART <= now)
        key = next(ready, None)
        if key is not None:
            self._say(key)
            self._free_at = now + 1 / PER_SECOND
        self._arm()

    def _say(self, key: Key) -> None:
        status = self._waiting.pop(key)()
        if status is None:
            return
        now = self._loop.time()
        self._last[key] = now
        try:
            self._publish(as_event(key, status, now=now, wall=datetime.now(UTC)))
        except Exception:  # an outer edge: whoever listens must not harm the stream
            if not self._failed:
                self._failed = True
                self._log.exception("holdfast: a stream's status could not be published")
