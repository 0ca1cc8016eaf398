"""Finds what a kernel dropped, from the numbers in its ``msg_id``s. Pure.

jupyter_client's ``Session`` writes ``<session>_<pid>_<n>`` with ``n`` counting every message of
the process, on iopub and in replies. A PUB socket at its high-water mark drops without a word,
and then a number is missing.

Invariant: a number is declared lost only if (1) its series has proven dense, (2) iopub, which
keeps its order, has gone past it, and (3) two whole ``tick``s went by since without it, in which
the reply sockets were read. So replies that overtake a long iopub queue, or lag behind it, are
never taken for losses. Rejected: a time window alone, because a slow log makes iopub late by any
amount while replies pass it.

Numbers can be missing for innocent reasons: two threads of a kernel race for one number (then
one appears twice and the next is never used), or a reply went to a session that was closed.
Each is forgiven once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: So many numbers in a row prove a series dense.
_PROOF: Final = 12
#: Holes farther apart than this are no loss but another way of counting.
_MAX_HOLE: Final = 1_000_000


@dataclass(slots=True)
class _Series:
    """One process's numbers. ``base``: iopub's first, or -1; below ``floor`` all is settled."""

    base: int = -1
    floor: int = -1
    iopub_top: int = -1
    ahead: set[int] = field(default_factory=set)
    run: int = 0
    dense: bool = False
    doubles: int = 0
    seen: int = 0
    # (end, ticks): holes below ``end`` were already passed by iopub so many ticks ago
    waiting: list[tuple[int, int]] = field(default_factory=list)


class Counters:
    """Feed it every message of one kernel incarnation; ``tick`` it about twice a second."""

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}
        self._forgiven = 0

    def __repr__(self) -> str:
        return f"Counters({len(self._series)} series, {self._forgiven} forgiven)"

    def forgive(self, count: int) -> None:
        """``count`` answers went to a session that is closed: their numbers will be missing."""
        self._forgiven += count

    def observe(self, msg_id: str, *, iopub: bool) -> None:
        """One message arrived. Ids of any other shape than jupyter_client's are ignored."""
        prefix, _, digits = msg_id.rpartition("_")
        if not prefix or not digits.isdecimal():
            return
        number = int(digits)
        series = self._series.get(prefix)
        if series is None:
            if not prefix.rpartition("_")[2].isdecimal():
                return
            series = self._series[prefix] = _Series()
        if series.base < 0:
            if not iopub:
                series.ahead.add(number)
                return
            # What iopub said before we subscribed is no loss: its first number is the floor.
            series.base = series.floor = number
            series.ahead = {early for early in series.ahead if early > number}
        self._add(series, number)
        if iopub and number > series.iopub_top:
            series.iopub_top = number

    def _add(self, series: _Series, number: int) -> None:
        series.seen += 1
        if number == series.floor and not series.ahead:
            series.floor += 1  # the common case: everything in order
            series.run += 1
            series.dense = series.dense or series.run >= _PROOF
            return
        if number < series.floor or number in series.ahead:
            if number >= series.base:  # below is what was said before we subscribed
                series.doubles += 1
                self._forgiven += 1
            return
        if number - series.floor > _MAX_HOLE:
            series.base = series.floor = number + 1
            series.run, series.dense = 0, False
            series.ahead.clear()
            series.waiting.clear()
            return
        series.ahead.add(number)
        self._close_up(series)

    def _close_up(self, series: _Series) -> None:
        while series.floor in series.ahead:
            series.ahead.remove(series.floor)
            series.floor += 1
            series.run += 1
        series.dense = series.dense or series.run >= _PROOF

    def tick(self) -> int:
        """How many messages are now known to be lost (since the last call)."""
        return self._excuse(sum(self._age(series) for series in self._series.values()))

    def finish(self) -> int:
        """The process is gone and all it said was read: every hole left is a loss."""
        lost = 0
        for series in self._series.values():
            lost += self._settle(series, series.iopub_top)
        return self._excuse(lost)

    def _age(self, series: _Series) -> int:
        due = 0
        waiting = []
        for end, ticks in series.waiting:
            if end <= series.floor:
                continue
            if ticks >= 1:
                due = max(due, end)
            else:
                waiting.append((end, ticks + 1))
        if series.ahead and series.iopub_top > series.floor:
            waiting.append((series.iopub_top, 0))
        series.waiting = waiting
        return self._settle(series, due)

    def _settle(self, series: _Series, end: int) -> int:
        """Give up every hole below ``end``; the number of missing ones if the series counts."""
        if end <= series.floor:
            return 0
        arrived = [number for number in series.ahead if number < end]
        missing = end - series.floor - len(arrived)
        series.ahead.difference_update(arrived)
        series.floor = end
        self._close_up(series)
        if not series.dense:
            series.run = 0
            return 0
        # A kernel that numbers each channel for itself shows doubles all the time.
        return 0 if series.doubles * 10 > series.seen else missing

    def _excuse(self, lost: int) -> int:
        excused = min(lost, self._forgiven)
        self._forgiven -= excused
        return lost - excused
