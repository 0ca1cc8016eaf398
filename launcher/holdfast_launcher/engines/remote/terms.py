"""On what terms a keeper has its place: what a signal of its scheduler announces. Pure.

A scheduler sends SIGUSR1 some time before it ends a job when it was asked to, and SIGTERM when it
has begun to; it does not say which of its reasons it has. How long the job has run does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from signal import Signals
from typing import Final

from holdfast_launcher.engines.remote.reporting import Order
from holdfast_launcher.keeper.companion import Foreseen

#: sbatch(1), --signal: "may be sent up to 60 seconds earlier than specified".
_EARLY: Final = 60.0
#: SIGTERM comes at the limit itself, or when somebody or something else ends the job.
_AT_LIMIT: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """``notice``: seconds before the limit at which the scheduler was asked to send SIGUSR1.
    ``clock``: steady seconds; ``wall``: the time of day, for people."""

    engine: str
    begun: float
    time_limit: int | None = None
    notice: int = 60
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    wall: Callable[[], float] = field(default=time.time, repr=False)

    @classmethod
    def begin(cls, order: Order) -> Terms:
        """Of a job that begins now."""
        return cls(
            engine=order.engine,
            begun=time.monotonic(),
            time_limit=order.time_limit,
            notice=order.notice,
        )

    def foresee(self, number: Signals) -> Foreseen | None:
        """What to tell the user on ``number``."""
        left = None if self.time_limit is None else self.begun + self.time_limit - self.clock()
        if number is Signals.SIGUSR1:
            if left is not None and left <= self.notice + _EARLY:
                return self._limit_nears(left)
            return Foreseen(
                notice=f"{self.engine} takes this kernel's place for other work in a moment: "
                "save what you need now",
                reason=f"{self.engine} pre-empted it: its place was needed for other work",
                final=False,
            )
        if number is not Signals.SIGTERM:
            return None
        if left is not None and left <= _AT_LIMIT:
            reason = f"it reached its time limit of {_spell(self.time_limit or 0)}"
            return Foreseen(notice=f"this kernel ends now: {reason}", reason=reason, final=True)
        reason = f"{self.engine} ended its job before its time (pre-empted or cancelled)"
        return Foreseen(notice=f"this kernel ends now: {reason}", reason=reason, final=True)

    def _limit_nears(self, left: float) -> Foreseen:
        at = datetime.fromtimestamp(self.wall() + max(left, 0.0)).astimezone().strftime("%H:%M:%S")
        limit = _spell(self.time_limit or 0)
        return Foreseen(
            notice=f"this kernel reaches its time limit of {limit} at {at} and ends then: "
            "save what you need now",
            reason=f"it reached its time limit of {limit}",
            final=False,
        )


def _spell(seconds: int) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds and seconds % size == 0:
            count = seconds // size
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds} seconds"
