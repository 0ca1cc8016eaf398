"""What a person sees: a live picture while the notebook runs, and the verdict as a table.

On a terminal rich draws the picture below the lines that are said; elsewhere everything is a
line. All of that goes to standard error; the verdict is what standard output gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .verdict import Verdict

#: Pictures a second. More would take processor time from what is measured.
_REFRESH = 4


@dataclass(frozen=True, slots=True)
class MemberView:
    """One line of the picture. ``state``: what it does, as a word."""

    name: str
    state: str
    pid: int | None
    carries: bool
    kills: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One moment. Times are seconds; ``last`` is the latest failover, None: there was none."""

    title: str
    elapsed: float
    seconds: float
    cell: int
    cells: int
    lines: int
    expected: int
    kills: int
    last: float | None
    members: tuple[MemberView, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One gateway's result. ``signal``: what its members got, e.g. ``SIGKILL``."""

    title: str
    signal: str
    verdict: Verdict


class Screen:
    """A context manager around the run; ``say`` may be called before, in and after it."""

    def __init__(self, console: Console, scene: Callable[[], Scene]) -> None:
        self._console, self._scene = console, scene
        self._live: Live | None = None

    def __repr__(self) -> str:
        return f"<Screen live={self._live is not None}>"

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=lambda: picture(self._scene()),
                refresh_per_second=_REFRESH,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """One line for the person, whatever is being drawn."""
        # On a terminal lines break between words; elsewhere a line stays one, for grep.
        self._console.print(Text(text), soft_wrap=not self._console.is_terminal)

    def note(self, text: str) -> None:
        """A line that the picture shows anyway where there is one."""
        if self._live is None:
            self.say(text)


def picture(scene: Scene) -> RenderableType:
    """The live picture; it fits into 60 columns."""
    head = Text.assemble(
        (f"{scene.title}  ", "bold"),
        f"cell {scene.cell} of {scene.cells}   {scene.lines:,} of {scene.expected:,} lines",
    )
    clock = Table.grid(padding=(0, 1))
    clock.add_row(
        ProgressBar(total=scene.seconds, completed=min(scene.elapsed, scene.seconds), width=40),
        f"{scene.elapsed:.0f} s of about {scene.seconds:.0f}",
    )
    last = "" if scene.last is None else f", the last one took {scene.last * 1000:,.0f} ms"
    return Group(head, clock, _members(scene.members), Text(f"kills: {scene.kills}{last}"))


def _members(views: Sequence[MemberView]) -> Table:
    table = Table.grid(padding=(0, 2))
    for view in views:
        up = view.state == "ready"
        table.add_row(
            Text("●", "green") if up else Text("○", "yellow"),
            view.name,
            Text("carries the notebook", "bold") if up and view.carries else view.state,
            "" if view.pid is None else f"pid {view.pid}",
            f"hit {view.kills}x" if view.kills else "",
        )
    return table


def verdict_table(columns: Sequence[Column]) -> Table:
    """The counts, one column a gateway."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for column in columns:
        table.add_column(column.title, justify="right")
    rows = [_rows(column) for column in columns]
    for label in rows[0]:
        table.add_row(label, *(row[label] for row in rows))
    return table


def _rows(column: Column) -> dict[str, str]:
    verdict = column.verdict
    replies = verdict.cells - len(verdict.no_reply) - verdict.unfinished
    steps = "not asked" if verdict.steps is None else f"{verdict.steps:,}"
    return {
        "cells that ran exactly once": f"{verdict.ran_once} of {verdict.cells}",
        "cells that ended with a reply": f"{replies} of {verdict.cells}",
        "lines expected": f"{verdict.expected:,}",
        "lines received": f"{verdict.received:,}",
        "  lost": f"{verdict.lost:,}",
        "  doubled": f"{verdict.doubled:,}",
        "  out of order": f"{verdict.misplaced:,}",
        "steps the kernel remembers": steps,
        "kernels lost": f"{verdict.kernels_lost}",
        f"{column.signal} to the one that carries": f"{verdict.kills}",
        "  the running cell went on": f"{verdict.survived} of {verdict.kills}",
        "  after (p50 / p99 / max)": _failover(verdict),
    }


def _failover(verdict: Verdict) -> str:
    found = [verdict.failover(share) for share in (0.5, 0.99, 1.0)]
    if None in found:
        return "never"
    return " / ".join(f"{(seconds or 0.0) * 1000:,.0f}" for seconds in found) + " ms"


def closing(column: Column) -> Text:
    """The verdict in words."""
    verdict = column.verdict
    early = "Stopped early. " if verdict.interrupted else ""
    if verdict.ok:
        so_far = "So far nothing" if verdict.interrupted else "Nothing"
        return Text(f"{early}{so_far} was lost and nothing came twice.", "bold green")
    lost = verdict.lost or verdict.no_reply or verdict.not_run or verdict.kernels_lost
    what = "lost something" if lost else "did not keep its word"
    lines = [f"{early}{column.title} {what}:", *verdict.complaints]
    return Text("\n  - ".join(lines), "bold red")


def to_json(column: Column) -> dict[str, Any]:
    """The counts for a program. Times are milliseconds; null: the cell never went on."""
    verdict = column.verdict
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {
        "gateway": column.title,
        "ok": verdict.ok,
        "complaints": list(verdict.complaints),
        "cells": verdict.cells,
        "unfinished": verdict.unfinished,
        "ran_once": verdict.ran_once,
        "ran_twice": list(verdict.ran_twice),
        "not_run": list(verdict.not_run),
        "no_reply": list(verdict.no_reply),
        "doubled_replies": list(verdict.doubled_replies),
        "failed": list(verdict.failed),
        "lines": {
            "expected": verdict.expected,
            "received": verdict.received,
            "lost": verdict.lost,
            "doubled": verdict.doubled,
            "out_of_order": verdict.misplaced,
        },
        "kernel_remembers": verdict.steps,
        "kernels_lost": verdict.kernels_lost,
        "browser_reconnects": verdict.reconnects,
        "signal": column.signal,
        "kills": verdict.kills,
        "survived": verdict.survived,
        "failover_ms": {name: _ms(verdict.failover(share)) for name, share in shares.items()},
        "failovers_ms": [_ms(seconds) for seconds in verdict.failovers],
        "interrupted": verdict.interrupted,
    }


def _ms(seconds: float | None) -> float | None:
    if seconds is None or seconds == float("inf"):
        return None
    return round(seconds * 1000, 1)
