"""When a dead child is started again: a pure rule, no clock and no process.

The first restart is at once, because a proxy that somebody killed must be back within 2 s. Only a
child that keeps dying is made to wait, twice as long each time, up to ``cap``. A run counts as a
failure when it ended before it was ready or within ``stable`` seconds of it: a child that is
killed a hundred times an hour is not a child that cannot run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Times in seconds. ``failures`` counts the runs in a row that failed."""

    base: float = 0.5
    cap: float = 30.0
    stable: float = 1.0
    failures: int = 0

    def after_exit(self, ready_for: float | None) -> Backoff:
        """The state after a run that was ready for so long; None: it never was."""
        if ready_for is not None and ready_for >= self.stable:
            return replace(self, failures=0)
        return replace(self, failures=self.failures + 1)

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start."""
        if self.failures <= 1:
            return 0.0
        # The exponent is bounded so that a week of failures does not overflow a float.
        return float(min(self.cap, self.base * 2 ** min(self.failures - 2, 32)))
