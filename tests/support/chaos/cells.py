"""The cell that the work is made of: its code, and what it prints when nothing goes wrong.

It notes that it began in the side file with one write, which no kill can halve, then prints
numbered lines. So the side file counts how often it ran and in which process and order, and the
lines show what was lost, doubled or out of order. Both sides of the judgement use this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from support.chaos.history import Ran

#: Characters of the session's id that lines begin with: enough to tell whose they are.
_SHORT = 6


@dataclass(frozen=True, kw_only=True)
class Cell:
    """``width`` more characters in each line; ``interval`` seconds between lines."""

    session: str
    number: int
    lines: int
    width: int = 0
    interval: float = 0.01

    def code(self, side: Path, kernel: str) -> str:
        """What the kernel is given."""
        mark = f"{self.session} {self.number} {kernel}"
        return (
            "import os, time\n"
            f"_side = os.open({str(side)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)\n"
            f"os.write(_side, ('{mark} %d %.6f\\n' % (os.getpid(), time.monotonic())).encode())\n"
            "os.close(_side)\n"
            f"for _i in range({self.lines}):\n"
            f"    print('{self._prefix}:%d{'.' * self.width}' % _i, flush=True)\n"
            f"    time.sleep({self.interval})\n"
        )

    @property
    def text(self) -> str:
        """All of its output."""
        dots = "." * self.width
        return "".join(f"{self._prefix}:{i}{dots}\n" for i in range(self.lines))

    @property
    def _prefix(self) -> str:
        return f"{self.session[:_SHORT]}:{self.number}"


def read_side_file(path: Path) -> list[Ran]:
    """The executions, in order. Raises ValueError at a line that no cell wrote."""
    if not path.exists():
        return []
    runs = []
    for line in path.read_text(encoding="utf-8").splitlines():
        session, cell, kernel, pid, at = line.split(" ")
        runs.append(Ran(at=float(at), session=session, cell=int(cell), kernel=kernel, pid=int(pid)))
    return runs
