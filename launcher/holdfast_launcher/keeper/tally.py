"""What one keeper has counted since it began, for its launcher's ``/metrics``.

Plain numbers, added to on the loop's thread and written into ``activity.json`` with everything
else that the launcher reads there: a keeper serves no metrics itself, because there is one for
each kernel and its id would have to be a label. It knows the names; it must not know Prometheus,
whose client costs a keeper memory for nothing. The launcher sums, and lets names pass that it does
not know (``docs/reference/wire.md``, "Keeper").

A name is ``word`` or ``word:label``. ``counts`` only ever rise; ``levels`` are how things stand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

#: Upper bounds, in seconds, of how long sessions were without a connection.
FAILOVER_BOUNDS: Final = (
    *(0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 300.0),
)
#: Reasons of gaps, as the log says them, to what a label may hold.
_GAP_LABELS: Final = {
    "log full": "log_full",
    "the log's disk failed": "disk",
    "node quota": "node_quota",
    "the keeper was replaced": "replaced",
}


class Tally:
    """``changed`` is called when something was counted that no message announces."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._counts: Counter[str] = Counter()
        self._sums: defaultdict[str, float] = defaultdict(float)

    def __repr__(self) -> str:
        return f"<Tally of {sum(self._counts.values())} events>"

    def add(self, name: str, count: int = 1) -> None:
        """Count ``count`` more of ``name``. Nothing for zero: a name that never happened is not
        written."""
        if count:
            self._counts[name] += count
            self._changed()

    def gap(self, reason: str) -> None:
        """A session was told that something of its is missing."""
        self.add(f"gaps:{_GAP_LABELS.get(reason, 'other')}")

    def kernel_lost(self, count: int) -> None:
        """The kernel's own numbering skipped ``count`` messages."""
        self.add("kernel_lost", count)
        self.add("gaps:kernel")

    def ended(self, state: str) -> None:
        """An incarnation of the kernel ended; ``state`` is what follows, as Jupyter calls it."""
        names = {"starting": "restarts:asked", "restarting": "restarts:crashed"}
        self.add(names.get(state, "deaths"))

    def moved(self) -> None:
        """Nothing to count, but a level may be another one."""
        self._changed()

    def failover(self, seconds: float, *, seen: bool) -> None:
        """A session had no connection for ``seconds`` and has one again. ``seen``: its loss was
        noticed; else the new connection replaced one that looked alive."""
        word = "failovers" if seen else "unseen_failovers"
        self._sums[f"{word}_seconds"] += max(0.0, seconds)
        place = bisect_left(FAILOVER_BOUNDS, seconds)
        bound = f"{FAILOVER_BOUNDS[place]:g}" if place < len(FAILOVER_BOUNDS) else "+Inf"
        self.add(f"{word}:{bound}")

    @property
    def counts(self) -> dict[str, float]:
        """A copy. ``failovers:<bound>`` are those within that bound and above the one before."""
        return {**self._counts, **{word: round(total, 6) for word, total in self._sums.items()}}
