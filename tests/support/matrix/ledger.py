"""What the fault matrix has measured: rows, their table, and the JSON file of them.

A row is written down also when its test fails, so that a run that misses a bar says by how much.
Knows nothing of Holdfast but names and bars. Bars are enforced from the number of tries on that
they are stated for; a short run (CI) shows a miss in the table and fails only far beyond it, since
one slow moment of a busy machine is not a percentile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from support.figures import percentile


class Pace(Enum):
    """How long a fault takes, and so how often a full run repeats it."""

    INSTANT = 100
    SECONDS = 10
    LONG = 3


#: `make matrix TRIES=`: at most this often; each fault no more often than its pace says.
TRIES = int(os.environ.get("HOLDFAST_TRIES", "1"))
#: How far beyond its bar a figure of a few tries may be, and at least this.
_LOOSE_TIMES, _LOOSE_SECONDS = 10.0, 20.0


@dataclass
class Row:
    """One fault and one thing that is measured of it. Times in seconds."""

    fault: str
    measure: str
    pace: Pace
    bar: float | None = None
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    failed: str = ""

    @property
    def tries(self) -> int:
        """How often to try in this run."""
        return max(1, min(TRIES, self.pace.value))

    @property
    def complete(self) -> bool:
        """Tried as often as its bar is stated for."""
        return len(self.seconds) >= self.pace.value

    @property
    def worst(self) -> float:
        """What the bar holds for: p99 from 100 tries on, below that the maximum."""
        if len(self.seconds) >= 100:
            return percentile(self.seconds, 0.99)
        return max(self.seconds, default=0.0)

    @property
    def met(self) -> bool:
        return self.bar is None or self.worst <= self.bar

    def count(self, *, lost: int, doubled: int) -> None:
        self.lost += lost
        self.doubled += doubled

    def check(self) -> None:
        """Nothing lost, nothing doubled, and the bar as far as this run can judge it."""
        assert (self.lost, self.doubled) == (0, 0), f"{self.fault}: {self.as_json()}"
        if self.bar is None:
            return
        bound = self.bar if self.complete else max(_LOOSE_TIMES * self.bar, _LOOSE_SECONDS)
        assert self.worst <= bound, f"{self.fault}: {self.as_json()}"

    def as_json(self) -> dict[str, object]:
        """Milliseconds, as the other figures are."""
        figure: dict[str, object] = {
            "fault": self.fault,
            "measure": self.measure,
            "tries": len(self.seconds),
            "p50_ms": round(percentile(self.seconds, 0.5) * 1000, 1) if self.seconds else None,
            "max_ms": round(max(self.seconds) * 1000, 1) if self.seconds else None,
            "lost": self.lost,
            "doubled": self.doubled,
            "bar_ms": None if self.bar is None else self.bar * 1000,
            "met": self.met and not self.failed,
        }
        if len(self.seconds) >= 100:
            figure["p99_ms"] = round(percentile(self.seconds, 0.99) * 1000, 1)
        return figure | {name: text for name in ("note", "failed") if (text := getattr(self, name))}


class Ledger:
    """All rows of one run."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.rows: list[Row] = []

    def __repr__(self) -> str:
        return f"<Ledger {self.mode}: {len(self.rows)} rows>"

    @contextmanager
    def row(
        self, fault: str, measure: str, pace: Pace, *, bar: float | None = None
    ) -> Iterator[Row]:
        """A row that is kept whatever happens; at the end of the block it is checked."""
        row = Row(fault, measure, pace, bar)
        self.rows.append(row)
        try:
            yield row
        except BaseException as error:
            row.failed = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise
        row.check()

    def write(self, folder: Path) -> Path:
        """``matrix-<mode>.json`` in ``folder``, with what was there of other rows before."""
        file = folder / f"matrix-{self.mode}.json"
        new = [row.as_json() for row in self.rows]
        names = {(row["fault"], row["measure"]) for row in new}
        old = json.loads(file.read_text()) if file.exists() else []
        kept = [row for row in old if (row["fault"], row["measure"]) not in names]
        file.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept + new) + "\n]\n")
        return file

    def table(self) -> str:
        """For people: one line a row."""
        head = ("fault", "measured", "tries", "p50", "max/p99", "bar", "lost", "doubled", "")
        lines = [head] + [_cells(row) for row in self.rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )


def _cells(row: Row) -> tuple[str, ...]:
    middle = _said(percentile(row.seconds, 0.5)) if row.seconds else "-"
    worst = ("p99 " if len(row.seconds) >= 100 else "") + _said(row.worst) if row.seconds else "-"
    verdict = row.failed or row.note if row.met else f"ABOVE THE BAR {row.failed}"
    bar = "-" if row.bar is None else _said(row.bar)
    counts = (str(row.lost), str(row.doubled))
    return (row.fault, row.measure, str(len(row.seconds)), middle, worst, bar, *counts, verdict)


def _said(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
