"""The two clocks of ownership, passed in so that tests can hold and jump them.

CLOCK_BOOTTIME decides (leases, deadlines: it goes on in suspend and is never set); wall time is
only written into records for people to read and for day-long expiry.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """``now``: CLOCK_BOOTTIME seconds. ``wall``: seconds since 1970."""

    now: Callable[[], float] = boottime
    wall: Callable[[], float] = time.time

    def stamp(self) -> str:
        """Wall time as ISO 8601 UTC with microseconds and Z, as Jupyter writes it."""
        moment = datetime.fromtimestamp(self.wall(), UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def age(self, stamp: str) -> float:
        """Seconds since ``stamp``; 0 for one that is not a time (records come from others)."""
        try:
            moment = datetime.fromisoformat(stamp)
        except ValueError:
            return 0.0
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, self.wall() - moment.timestamp())
