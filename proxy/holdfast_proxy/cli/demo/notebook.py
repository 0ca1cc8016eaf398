"""The notebook that the demo runs, as nbformat 4.5 documents it, and its cells' plan.

A person can open it before and after: it estimates pi, one numbered line a step, and draws how
the estimate came closer. Each printing cell first notes in a side file that it ran; the last one
says how many steps the kernel remembers. Built in code because its length is an option; nbformat
is not imported, since the package of the proxies depends on nothing of Jupyter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

#: Seconds between two lines, and what a cell lasts, roughly.
PAUSE, CELL_SECONDS = 0.01, 5.0

LINE = re.compile(r"cell (\d+), line (\d+): ")
STEPS = re.compile(r"steps in memory: (\d+)")

_INTRO = """\
# Cells that outlive their proxies

While this notebook ran, `holdfast demo` killed the proxy that carried it, again and again.
Each cell prints numbered lines. If Holdfast did its work, every cell ran once (see the side
file), no line is missing, none is there twice, and the last cell, which uses what the kernel
remembers from all the others, shows the whole way.
"""

_SETUP = '''\
import random
import time

SIDE_FILE = {side_file!r}  # each cell notes here that it ran
inside = 0
estimates = []


def estimate(cell, lines):
    """Throw points at a square: four times the share inside the circle comes near pi."""
    global inside
    with open(SIDE_FILE, "a") as side:
        side.write(f"{{cell}}\\n")
    for line in range(1, lines + 1):
        inside += sum(random.random() ** 2 + random.random() ** 2 <= 1 for _ in range(50))
        estimates.append(4 * inside / (50 * (len(estimates) + 1)))
        print(f"cell {{cell}}, line {{line}}: pi is about {{estimates[-1]:.5f}}", flush=True)
        time.sleep({pause!r})
'''

_PICTURE = '''\
from IPython.display import SVG, display

print(f"steps in memory: {len(estimates)}")
shown = [estimates[len(estimates) * x // 600] for x in range(600)] if estimates else []
points = " ".join(f"{x},{150 - 400 * (y - 3.14159265):.1f}" for x, y in enumerate(shown))
display(SVG(f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 300" width="600">
<line x1="0" y1="150" x2="600" y2="150" stroke="gray" stroke-dasharray="4"/>
<text x="4" y="144" font-family="sans-serif" font-size="12" fill="gray">pi</text>
<polyline points="{points}" fill="none" stroke="#1f77b4" stroke-width="1.5"/></svg>"""))
'''


class Role(Enum):
    """What a cell is for. Only STEPS are counted; SETUP runs again in a kernel that replaces
    one that died."""

    TEXT = "text"
    SETUP = "setup"
    STEPS = "steps"
    PICTURE = "picture"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookCell:
    """One cell. ``number`` and ``lines``: of a cell that prints, else 0."""

    role: Role
    source: str
    number: int = 0
    lines: int = 0


def build_cells(*, seconds: float, side_file: Path) -> tuple[NotebookCell, ...]:
    """The notebook whose printing cells last for about ``seconds``."""
    count = max(2, round(seconds / CELL_SECONDS))
    lines = max(1, round(seconds / count / PAUSE))
    setup = _SETUP.format(side_file=str(side_file), pause=PAUSE)
    steps = (
        NotebookCell(
            role=Role.STEPS, source=f"estimate({number}, {lines})", number=number, lines=lines
        )
        for number in range(1, count + 1)
    )
    return (
        NotebookCell(role=Role.TEXT, source=_INTRO),
        NotebookCell(role=Role.SETUP, source=setup),
        *steps,
        NotebookCell(role=Role.PICTURE, source=_PICTURE),
    )


@dataclass(frozen=True, slots=True)
class CellOutputs:
    """What a document keeps of one execution."""

    outputs: tuple[Mapping[str, Any], ...] = ()
    execution_count: int | None = None


def document(
    cells: tuple[NotebookCell, ...], outputs: Mapping[int, CellOutputs] | None = None
) -> dict[str, Any]:
    """The notebook file (nbformat 4.5). ``outputs``: position of the cell → what it brought."""
    brought = outputs or {}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
        "cells": [
            _cell(position, cell, brought.get(position, CellOutputs()))
            for position, cell in enumerate(cells)
        ],
    }


def count_runs(side_text: str) -> dict[int, int]:
    """Cell number → how often it ran, from the side file's content."""
    runs: dict[int, int] = {}
    for word in side_text.split():
        runs[int(word)] = runs.get(int(word), 0) + 1
    return runs


def _cell(position: int, cell: NotebookCell, brought: CellOutputs) -> dict[str, Any]:
    common = {"id": f"demo-{position}", "metadata": {}, "source": cell.source}
    if cell.role is Role.TEXT:
        return {"cell_type": "markdown", **common}
    return {
        "cell_type": "code",
        **common,
        "execution_count": brought.execution_count,
        "outputs": [dict(output) for output in brought.outputs],
    }
