"""One file of events per traced process, in the directory that ``$CHAOS_TRACE`` names.

Each event is one write to a file opened for appending, so that a process killed at any moment
leaves whole lines.
"""

from __future__ import annotations

import os
import time
from enum import Enum
from pathlib import Path

from support.chaos.history import Acted, Event, Fenced, encode

_DIRECTORY = "CHAOS_TRACE"
_PLANT = "CHAOS_PLANT"
#: What launchers hand on to the keepers that they fork.
PASSED_ON = (_DIRECTORY, _PLANT)


class Plant(Enum):
    """A fault that is in the harness on purpose: the checker must report each."""

    NONE = ""
    SILENT_LOSS = "silent-loss"
    DOUBLE_EXECUTION = "double-execution"
    STALE_TOKEN = "stale-token"


def trace_environment(directory: Path, plant: Plant) -> dict[str, str]:
    """For the launchers, whose keepers inherit it."""
    paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    return {_DIRECTORY: str(directory), _PLANT: plant.value, "PYTHONPATH": path}


def planted() -> Plant:
    """The fault that this process is to have."""
    return Plant(os.environ.get(_PLANT, ""))


class Trace:
    """``where`` is ``keeper`` or ``launcher``; the process id is added."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._file: int | None = None
        self._pid = 0

    def __repr__(self) -> str:
        return f"<Trace of {self._where} {self._pid}>"

    def fenced(self, kernel: str, token: tuple[int, int]) -> None:
        self._write(Fenced(at=time.monotonic(), where=self._name(), kernel=kernel, token=token))

    def acted(self, kernel: str, call: str, token: tuple[int, int]) -> None:
        now = time.monotonic()
        self._write(Acted(at=now, where=self._name(), kernel=kernel, call=call, token=token))

    def _name(self) -> str:
        return f"{self._where} {os.getpid()}"

    def _write(self, event: Event) -> None:
        if self._file is None or self._pid != os.getpid():
            path = Path(os.environ[_DIRECTORY]) / f"{self._where}-{os.getpid()}.jsonl"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._pid = os.getpid()
        os.write(self._file, (encode(event) + "\n").encode())
