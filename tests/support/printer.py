"""The cell that failures are measured with, and what must hold for it afterwards.

It appends its number to a side file once, then prints numbered lines, one every few milliseconds:
the side file counts how often it ran, the lines show what was lost, doubled or out of order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from support.notebook import Execution


@dataclass(frozen=True)
class PrinterCell:
    number: int
    lines: int
    side_file: Path
    interval: float = 0.005

    @property
    def code(self) -> str:
        return (
            "import time\n"
            f"with open({str(self.side_file)!r}, 'a') as side:\n"
            f"    side.write('{self.number}\\n')\n"
            f"progress = open({str(self.progress_file)!r}, 'w', buffering=1)\n"
            f"for i in range({self.lines}):\n"
            f"    print('{self.number}:%d' % i, flush=True)\n"
            "    print(i, file=progress)\n"
            f"    time.sleep({self.interval})\n"
        )

    @property
    def progress_file(self) -> Path:
        """Where the cell itself notes each line it has printed, whoever hears of it."""
        return self.side_file.with_suffix(f".progress-{self.number}")

    def progress(self) -> int:
        """How many lines the cell has printed by its own account."""
        return len(self.progress_file.read_text().split()) if self.progress_file.exists() else 0

    def check(self, execution: Execution) -> None:
        """Ran once; every line, in order, once; one reply and idle."""
        expected = [f"{self.number}:{i}" for i in range(self.lines)]
        assert execution.text.splitlines() == expected, _difference(expected, execution)
        assert execution.reply_content["status"] == "ok"
        assert execution.idle
        assert execution.stderr == ""
        ran = self.side_file.read_text().split().count(str(self.number))
        assert ran == 1, f"cell {self.number} ran {ran} times"


def _difference(expected: list[str], execution: Execution) -> str:
    got = execution.text.splitlines()
    missing = [line for line in expected if line not in set(got)]
    return (
        f"{len(expected)} lines expected, {len(got)} came; missing {missing[:5]} "
        f"({len(missing)}); doubled {len(got) - len(set(got))}; stderr {execution.stderr!r}"
    )
