"""The files of a run: what clients saw, what kernels did, what keepers and launchers noted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from support.chaos.cells import read_side_file
from support.chaos.history import Event, read_history

HISTORY, SIDE, TRACES = "history.jsonl", "side.txt", "traces"


def read_archive(directory: Path) -> Iterator[Event]:
    """Every event of a run. Raises OSError, or ValueError at a line that is none."""
    yield from read_history(directory / HISTORY)
    yield from read_side_file(directory / SIDE)
    for path in sorted((directory / TRACES).glob("*.jsonl")):
        yield from read_history(path)
