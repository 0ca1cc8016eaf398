"""Which process a pid means: the pid alone may be somebody else's by now.

A pid and its start time (clock ticks since boot, field 22 of ``/proc/<pid>/stat``, proc(5))
name one process for as long as the machine runs. Rejected: psutil's ``create_time``, which is
wall-clock time and moves when the clock is set.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

#: Position of state and starttime among the fields after the command name's closing bracket.
_STATE, _START = 0, 19


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for ever: ``start_ticks`` is its start in clock ticks since boot."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The process that has ``pid`` now; None when there is none, or only its zombie."""
        fields = _stat(pid)
        if fields is None or fields[_STATE] in "ZX":
            return None
        return cls(pid, int(fields[_START]))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (stopped counts, a zombie does not)."""
        return ProcessIdentity.of(self.pid) == self

    @property
    def stopped(self) -> bool:
        """Whether it is held by SIGSTOP or a debugger."""
        fields = _stat(self.pid)
        return fields is not None and fields[_STATE] in "Tt"

    def send(self, number: signal.Signals) -> bool:
        """Signal it if it still lives; False when it is gone.

        Between the look and the signal the pid could in theory pass on. Pids are handed out in
        a circle of 32,768 or more, so that needs a full turn within microseconds.
        """
        if not self.alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may hold spaces and brackets; the last bracket ends it.
    return text[text.rindex(")") + 2 :].split()
