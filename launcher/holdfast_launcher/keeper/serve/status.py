"""The kernel's state as others read it: ``GET /v1/kernel`` and ``activity.json``. Pure but for
the clock that is passed in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..config import KeeperConfig
from ..fence import Fence
from .hub import Hub


def iso(timestamp: float) -> str:
    """Seconds since the epoch as Jupyter writes times: ISO 8601, microseconds, Z."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Status:
    """Knows when the kernel was last active. ``now``: seconds since the epoch."""

    def __init__(
        self, config: KeeperConfig, hub: Hub, fence: Fence, now: Callable[[], float]
    ) -> None:
        self._config = config
        self._hub = hub
        self._fence = fence
        self._now = now
        self._last_activity = now()

    def __repr__(self) -> str:
        return f"<Status {self.activity()}>"

    def touch(self) -> None:
        """Something went to or from the kernel just now."""
        self._last_activity = self._now()

    def activity(self) -> dict[str, Any]:
        """What ``activity.json`` holds."""
        info = self._hub.host.info()
        return {
            "execution_state": info.execution_state,
            "last_activity": iso(self._last_activity),
            "connections": len(self._hub.sessions.attached),
            "reason": info.reason,
        }

    def state(self) -> dict[str, Any]:
        """The answer to ``GET /v1/kernel``."""
        info = self._hub.host.info()
        journal = self._hub.journal
        index = journal.index
        return {
            "kernel_id": self._config.kernel_id,
            "nonce": self._config.nonce,
            "spec": self._config.spec,
            "epoch": self._hub.epoch.hex(),
            "incarnation": info.incarnation,
            **self.activity(),
            "fence": self._fence.highest.as_list(),
            "kernel_session": info.kernel_session,
            "pid": info.pid,
            "log": {
                "head": index.head,
                "floor": index.floor,
                "bytes": index.size,
                "limit": journal.limit,
                "lost": journal.lost,
            },
        }
