"""What was lost and what came twice: counts in, one frozen verdict out.

Four witnesses that know nothing of each other: the side file that each cell appends to says how
often it ran, the numbered lines say what arrived, the replies say how cells ended, and the
kernel's own memory says how many steps it did. Pure; the times are the caller's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

#: A silence belongs to a kill when it began before so many seconds after it. A process that gets
#: SIGTERM may go on for a moment, and lines that were under way come after the kill.
HORIZON = 1.0


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """One cell that prints. ``lines``: the numbers that came for it, in order of arrival.

    ``strange`` counts lines that bear another cell's number. ``finished``: reply and idle came;
    ``replies`` above one is a doubled reply. ``cut``: it was still running when the person
    stopped the demo, so that nobody knows how it would have ended.
    """

    number: int
    expected: int
    lines: tuple[int, ...]
    replies: int
    status: str
    finished: bool
    strange: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """A signal to one member, ``at`` seconds on the caller's clock."""

    at: float
    target: str


@dataclass(frozen=True, slots=True)
class Spell:
    """The arrival times of all lines of one kernel; ``lost``: it was given up with a cell."""

    times: tuple[float, ...]
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The counts. ``unfinished``: cells that were cut. ``failovers`` are seconds, one for each
    kill; infinite: the cell never went on."""

    cells: int
    unfinished: int
    ran_once: int
    ran_twice: tuple[int, ...]
    not_run: tuple[int, ...]
    no_reply: tuple[int, ...]
    doubled_replies: tuple[int, ...]
    failed: tuple[int, ...]
    expected: int
    received: int
    lost: int
    doubled: int
    misplaced: int
    steps: int | None
    kernels_lost: int
    reconnects: int
    failovers: tuple[float, ...]
    interrupted: bool
    trouble: str = ""

    @property
    def kills(self) -> int:
        return len(self.failovers)

    @property
    def survived(self) -> int:
        """Kills after which the same cell went on in the same kernel."""
        return sum(map(math.isfinite, self.failovers))

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is wrong, one short sentence each; empty when nothing is."""
        found = [*self._about_cells(), *self._about_lines()]
        if self.kernels_lost:
            found.append(f"{_many(self.kernels_lost, 'kernel')} died and had to be replaced")
        if not self.kills and not self.interrupted:
            found.append("no proxy was killed, so nothing was shown")
        return (*found, self.trouble) if self.trouble else tuple(found)

    @property
    def ok(self) -> bool:
        """Nothing was lost, nothing came twice, and it was put to the test."""
        return not self.complaints

    def failover(self, share: float) -> float | None:
        """The failover that ``share`` of those kills that were survived do not exceed."""
        finite = [seconds for seconds in self.failovers if math.isfinite(seconds)]
        return percentile(finite, share) if finite else None

    def _about_cells(self) -> Iterable[str]:
        said = (
            (self.ran_twice, "ran more than once"),
            (self.not_run, "did not run"),
            (self.no_reply, "never ended: no reply came"),
            (self.doubled_replies, "got more than one reply"),
            (self.failed, "ended with an error"),
        )
        return (f"{_named(numbers)} {what}" for numbers, what in said if numbers)

    def _about_lines(self) -> Iterable[str]:
        if self.lost:
            yield f"{_many(self.lost, 'line')} never came"
        if self.doubled:
            yield f"{_many(self.doubled, 'line')} came twice"
        if self.misplaced:
            yield f"{_many(self.misplaced, 'line')} came out of order or in another cell"
        if self.steps is not None and self.steps != self.expected:
            yield f"the kernel remembers {self.steps:,} steps, not {self.expected:,}"


def judge(
    cells: Sequence[CellOutcome],
    *,
    runs: Mapping[int, int],
    kills: Sequence[Kill],
    spells: Sequence[Spell],
    steps: int | None = None,
    reconnects: int = 0,
    interrupted: bool = False,
    trouble: str = "",
) -> Verdict:
    """The verdict. ``cells`` are those that were begun; ``runs``: cell number → lines that it
    left in the side file; ``steps``: what the kernel remembers at its end, None: was not asked."""
    whole = [cell for cell in cells if not cell.cut]
    known = [runs.get(cell.number, 0) for cell in cells]
    counted = [_lines(cell) for cell in cells]
    return Verdict(
        cells=len(cells),
        unfinished=len(cells) - len(whole),
        ran_once=known.count(1),
        ran_twice=tuple(cell.number for cell in cells if runs.get(cell.number, 0) > 1),
        not_run=tuple(cell.number for cell in whole if not runs.get(cell.number, 0)),
        no_reply=tuple(cell.number for cell in whole if not (cell.finished and cell.replies)),
        doubled_replies=tuple(cell.number for cell in cells if cell.replies > 1),
        failed=tuple(c.number for c in whole if c.finished and c.replies and c.status != "ok"),
        expected=sum(expected for expected, _, _ in counted),
        received=sum(len(cell.lines) for cell in cells),
        lost=sum(lost for _, lost, _ in counted),
        doubled=sum(doubled for _, _, doubled in counted),
        misplaced=sum(_disorder(cell.lines) + cell.strange for cell in cells),
        steps=steps,
        kernels_lost=sum(spell.lost for spell in spells),
        reconnects=reconnects,
        failovers=failovers(kills, spells),
        interrupted=interrupted,
        trouble=trouble,
    )


def failovers(kills: Sequence[Kill], spells: Sequence[Spell]) -> tuple[float, ...]:
    """For each kill the longest silence that it can have caused, in seconds.

    That is: between two lines of which the second came after the kill, and the first before
    HORIZON was over and before the next kill. It says too much rather than too little: other
    delays of that second count too. Infinite when the kernel's lines ended there for good.
    """
    silences = [silence for spell in spells for silence in _silences(spell)]
    ends = [kill.at for kill in kills[1:]] + [math.inf] * bool(kills)
    return tuple(
        max(
            (late - early for early, late in silences if late > kill.at and early < until),
            default=math.inf,
        )
        for kill, end in zip(kills, ends, strict=True)
        for until in (min(kill.at + HORIZON, end),)
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that ``share`` of them do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(1, math.ceil(len(ranked) * share)) - 1]


def _silences(spell: Spell) -> list[tuple[float, float]]:
    ends = (*spell.times, math.inf) if spell.lost else spell.times
    return list(pairwise(ends))


def _lines(cell: CellOutcome) -> tuple[int, int, int]:
    """Lines expected, lost and doubled. A cell that was cut owes what precedes its last line."""
    seen = Counter(cell.lines)
    expected = max(seen, default=0) if cell.cut else cell.expected
    lost = sum(number not in seen for number in range(1, expected + 1))
    return expected, lost, sum(count - 1 for count in seen.values())


def _disorder(lines: Sequence[int]) -> int:
    """Lines that came after a higher one, not counting repeats: those are doubled already."""
    highest = 0
    seen: set[int] = set()
    late = 0
    for number in lines:
        late += number < highest and number not in seen
        highest = max(highest, number)
        seen.add(number)
    return late


def _named(numbers: Sequence[int]) -> str:
    word = "cell" if len(numbers) == 1 else "cells"
    return f"{word} {', '.join(map(str, numbers))}"


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
