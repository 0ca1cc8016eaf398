"""A cell that prints numbered lines until it is told to stop, for faults of unknown length.

`PrinterCell` is for those whose length is known. Beside the cell lie a side file, to which it adds
its number once each time it runs, and a progress file with each line that it has printed: what was
lost or doubled is counted against the cell's own account.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.matrix.ledger import Row
from support.notebook import Execution, Notebook

#: Lines before a fault, and after it before it counts as over.
_BEFORE, _AFTER = 20, 20


@dataclass
class OpenCell:
    """One such cell under way. ``began``: the monotonic time of the fault, see `mark`."""

    number: int
    folder: Path
    execution: Execution
    began: float = 0.0
    silence: float = field(default=0.0, init=False)

    def mark(self) -> float:
        """The fault begins now: silences from here on are its doing."""
        self.began = time.monotonic()
        return self.began

    def printed(self) -> int:
        """Lines that the cell has printed, by its own account, whoever heard of them."""
        file = _file(self.folder, self.number, "progress")
        return len(file.read_text().split()) if file.exists() else 0

    async def caught_up(self, seconds: float = 90.0) -> None:
        """Until the user sees what the cell prints now, and goes on seeing it."""
        goal = self.printed() + _AFTER
        await self.execution.wait_text(f"{self.number}:{goal}\n", seconds)

    async def goes_on(self, seconds: float, *, patience: float = 60.0) -> None:
        """Until the cell itself has gone on for about ``seconds``, whoever hears of it."""
        goal = time.monotonic() + seconds
        async with asyncio.timeout(seconds + patience):
            seen = self.printed()
            while time.monotonic() < goal or self.printed() == seen:  # noqa: ASYNC110 - see below
                await asyncio.sleep(0.05)  # the cell tells files, not us

    def tally(self) -> tuple[int, int]:
        """(lost, doubled): lines, and runs of the cell."""
        lines = Counter(self.execution.text.split())
        expected = {f"{self.number}:{i}" for i in range(self.printed())}
        assert set(lines) <= expected, f"{set(lines) - expected} were never printed"
        ran = _file(self.folder, self.number, "ran").read_text().split().count("ran")
        lost = len(expected - set(lines)) + (self.execution.reply is None)
        return lost, sum(lines.values()) - len(lines) + max(0, ran - 1)

    def check_order(self) -> None:
        """As printed, or with lines missing in between; never another order."""
        numbers = [int(line.partition(":")[2]) for line in self.execution.text.split()]
        assert numbers == sorted(numbers), "out of order"


def _file(folder: Path, number: int, kind: str) -> Path:
    return folder / f"cell-{number}.{kind}"


def _code(folder: Path, number: int, interval: float) -> str:
    side, progress, stop = (
        str(_file(folder, number, kind)) for kind in ("ran", "progress", "stop")
    )
    return (
        "import itertools, os, time\n"
        f"with open({side!r}, 'a') as side:\n"
        "    side.write('ran\\n')\n"
        f"progress = open({progress!r}, 'w', buffering=1)\n"
        "for i in itertools.count():\n"
        f"    print('{number}:%d' % i, flush=True)\n"
        "    print(i, file=progress)\n"
        f"    if os.path.exists({stop!r}): break\n"
        f"    time.sleep({interval})\n"
    )


@asynccontextmanager
async def under_way(
    book: Notebook,
    row: Row | None,
    number: int,
    folder: Path,
    *,
    interval: float = 0.005,
    measured: bool = True,
) -> AsyncIterator[OpenCell]:
    """Run such a cell; the block makes the fault and waits until it is over (`caught_up`).

    After the block the cell ends, and what was lost and doubled goes into ``row``, with the
    longest silence since `mark` when the row measures that.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a test's own small files
    execution = await book.execute(_code(folder, number, interval))
    cell = OpenCell(number, folder, execution)
    stop = _file(folder, number, "stop")
    try:
        await execution.wait_text(f"{number}:{_BEFORE}\n")
        yield cell
    finally:
        stop.touch()
    await execution.wait_done(90)
    cell.check_order()
    assert execution.reply_content["status"] == "ok", execution.reply_content
    lost, doubled = cell.tally()
    cell.silence = execution.longest_silence(cell.began)
    if row is not None:
        row.count(lost=lost, doubled=doubled)
        if measured:
            row.seconds.append(cell.silence)
