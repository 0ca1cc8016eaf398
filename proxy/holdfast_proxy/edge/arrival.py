"""When a request really arrived, also when this process was frozen meanwhile.

A proxy that is stopped (SIGSTOP, a suspended VM, a long stall) finds, when it wakes, requests in
its sockets that were sent long ago. Their senders have given them up and asked another proxy. So
"when we read it" is no arrival time. This module keeps a heartbeat on the event loop:

Invariant: *no request is given an arrival later than the earliest moment at which its bytes may
have come, minus the precision of the heartbeat*. A request seen while the last beat is old, or
before the loop has again kept time for ``CALM_BEATS`` beats in a row, counts as having arrived
when the stall began. This may refuse a fresh request right after a stall; its sender is told to
come again. The fencing token at keeper and launcher is the second line.

Knows clocks only; must not know HTTP. Rejected: the Date header (clients' clocks), and timestamps
by the kernel (TCP has none for data).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

BEAT_SECONDS: Final = 0.05
#: A beat this late is a stall. Shorter ones cannot matter beside an age limit of seconds.
STALL_SECONDS: Final = 0.5
#: So many beats on time in a row end the time after a stall: what lay in sockets has been read.
CALM_BEATS: Final = 5


def boottime() -> float:
    """CLOCK_BOOTTIME in seconds: monotonic, and counting also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ArrivalClock:
    """Tells the arrival time of what is being read now. Call ``start`` on the loop it watches."""

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._last_beat = clock()
        self._stalls = 0
        self._stall_began: float | None = None
        self._calm = 0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "calm" if self._stall_began is None else f"stalled since {self._stall_began:.3f}"
        return f"<ArrivalClock {state}>"

    def now(self) -> float:
        """The clock itself."""
        return self._clock()

    def arrival(self) -> float:
        """When a request that is seen in this turn of the loop may have arrived at the earliest."""
        now = self._clock()
        if self._stall_began is not None:
            return self._stall_began
        if now - self._last_beat > STALL_SECONDS:
            return self._last_beat
        return now

    def mark(self) -> int:
        """A mark for ``stalled_since``."""
        return self._stalls

    def stalled_since(self, mark: int) -> bool:
        """Whether this process was frozen after ``mark`` was taken, noticed by a beat or not."""
        return self._stalls != mark or self._clock() - self._last_beat > STALL_SECONDS

    def beat(self) -> None:
        """Once per ``BEAT_SECONDS``, by the loop itself."""
        now = self._clock()
        late = now - self._last_beat - BEAT_SECONDS
        if late > STALL_SECONDS:
            # A second stall before the first is over: the first one's start still holds.
            self._stall_began = self._last_beat if self._stall_began is None else self._stall_began
            self._stalls += 1
            self._calm = 0
        elif self._stall_began is not None:
            self._calm = self._calm + 1 if late < BEAT_SECONDS else 0
            if self._calm >= CALM_BEATS:
                self._stall_began = None
        self._last_beat = now

    def start(self) -> None:
        """Begin to beat on the running loop."""
        self._last_beat = self._clock()
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """Stop beating. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        def tick() -> None:
            self.beat()
            self._schedule(loop)

        self._timer = loop.call_later(BEAT_SECONDS, tick)
