"""The notebook that an analyst works through, and what its cells leave on the kernel's side.

Each cell notes in `ran.txt`, beside the notebook, that it ran; the long ones note each step in
`<cell>.steps`, and the slider's callback each value in `slider.txt`. So a test knows what
happened in the kernel, whoever heard of it. The source is the same in every run: what is
compared afterwards is the whole saved file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Seconds between two lines of text.
INTERVAL = 0.02
#: Bytes of the large output's picture; as base64 in one message it is 12 MB.
LARGE = 9_000_000

_SETUP = """\
import sys, time
from pathlib import Path
import ipywidgets, matplotlib.pyplot as plt, numpy as np
from IPython.display import Image, display
from PIL import Image as Picture
%matplotlib inline

def ran(cell):
    with open("ran.txt", "a") as file:
        file.write(cell + "\\n")

def step(cell):
    with open(cell + ".steps", "a") as file:
        file.write(".")

ran("setup")"""

_TEXT = """\
ran("text")
for i in range({lines}):
    print("reading part %d" % i, flush=True)
    step("text")
    time.sleep({interval})"""

_PLOT = """\
ran("plot")
x = np.linspace(0, 10, 200)
plt.plot(x, np.sin(x))
plt.title("a damped hope")
plt.show()"""

_SLIDER = """\
ran("slider")
slider = ipywidgets.IntSlider(value=3, min=0, max=20, description="width")

def moved(change):
    with open("slider.txt", "a") as file:
        file.write("%d\\n" % change["new"])

slider.observe(moved, "value")
display(slider)"""

_PROGRESS = """\
ran("progress")
for i in range({steps} + 1):
    bar = "#" * (40 * i // {steps})
    print("\\r%3d%% |%-40s|" % (100 * i // {steps}, bar), end="", file=sys.stderr, flush=True)
    step("progress")
    time.sleep({interval})
print(file=sys.stderr)"""

_QUESTION = """\
ran("question")
name = input("Who asks? ")"""

_ANSWER = """\
ran("answer")
print("%s chose %d" % (name, slider.value))"""

_LARGE = """\
ran("large")
side = int(({large} / 3) ** 0.5)
noise = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype="uint8")
Picture.fromarray(noise).save("noise.png", compress_level=0)
step("large")
display(Image("noise.png", width=300))"""

_END = """\
ran("end")
print("all done")"""


@dataclass(frozen=True)
class Analysis:
    """How long its two slow cells take: ``lines`` of text, ``steps`` of progress."""

    lines: int = 150
    steps: int = 60

    @property
    def cells(self) -> dict[str, str]:
        """Name → source of each code cell, in order."""
        return {
            "setup": _SETUP,
            "text": _TEXT.format(lines=self.lines, interval=INTERVAL),
            "plot": _PLOT,
            "slider": _SLIDER,
            "progress": _PROGRESS.format(steps=self.steps, interval=INTERVAL),
            "question": _QUESTION,
            "answer": _ANSWER,
            "large": _LARGE.format(large=LARGE),
            "end": _END,
        }

    def number(self, cell: str) -> int:
        """Which code cell of the notebook has this name, from 0."""
        return list(self.cells).index(cell)

    def write(self, folder: Path) -> Path:
        """The notebook as a file, never run."""
        file = folder / "analysis.ipynb"
        file.write_text(json.dumps(notebook(self.cells)))
        return file


def notebook(cells: dict[str, str]) -> dict[str, Any]:
    """An nbformat 4.5 notebook of these code cells, with fixed cell ids."""
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
        "cells": [
            {
                "cell_type": "code",
                "id": name,
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": source,
            }
            for name, source in cells.items()
        ],
    }


@dataclass(frozen=True)
class SideFiles:
    """What the cells of one notebook have noted in its folder."""

    folder: Path

    @property
    def ran(self) -> list[str]:
        """Names of the cells that ran, as often as they ran."""
        return self._read("ran.txt").split()

    @property
    def slider(self) -> list[int]:
        """Values that the kernel saw of the slider."""
        return [int(value) for value in self._read("slider.txt").split()]

    def steps(self, cell: str) -> int:
        """How many steps of ``cell`` are done."""
        return len(self._read(f"{cell}.steps"))

    def _read(self, name: str) -> str:
        file = self.folder / name
        return file.read_text() if file.exists() else ""
