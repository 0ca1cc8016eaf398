"""The notebook's run: its cells one after the other, and a new kernel where one was lost.

It gathers what came; what that means is the verdict's business. A person whose kernel died starts
another one and goes on with the next cell: so does this, after the setup cell, whoever the
gateway is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from .browser import Browser, BrowserError, KernelLost, Tab
from .notebook import CellOutputs, NotebookCell, Role, count_runs, document
from .record import CellRecord
from .verdict import CellOutcome, Kill, Spell, Verdict, judge

#: Seconds for a new kernel behind a gateway that is being killed again and again.
_NEW_KERNEL = 60.0
_AGAIN = 0.5


class Execution:
    """``open``, then ``run``, then ``save`` and ``close``; ``verdict`` at any time.

    ``path``: the notebook's below the server's root. ``clock``: seconds; the same one gives the
    times of kills. ``say`` is told what a person should know at once, ``note`` what the live
    picture shows anyway.
    """

    def __init__(
        self,
        cells: tuple[NotebookCell, ...],
        *,
        browser: Browser,
        path: str,
        side_file: Path,
        clock: Callable[[], float],
        say: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self.cells = cells
        self.began: float | None = None
        self.current: CellRecord | None = None
        self.trouble = ""
        #: Set when the printing cells are over: there is nothing more to disturb.
        self.calm = asyncio.Event()
        self._began = asyncio.Event()
        self._browser, self._path, self._side_file = browser, path, side_file
        self._clock, self._say, self._note = clock, say, note
        self._records: dict[int, CellRecord] = {}
        #: One list of records for each kernel; all but the last were lost.
        self._kernels: list[list[CellRecord]] = [[]]
        self._stack = AsyncExitStack()
        self._tabs: list[Tab] = []

    def __repr__(self) -> str:
        return f"<Execution {self._path} {len(self._records)} of {len(self.cells)} cells>"

    async def open(self) -> None:
        """Store the notebook and open it with a kernel. Raises BrowserError."""
        self._side_file.touch(mode=0o600)
        await self._browser.save(self._path, document(self.cells))
        await self._attach(await self._browser.open_session(self._path))

    async def run(self) -> None:
        """Every code cell, in order. What goes wrong is in the records, or in ``trouble``."""
        try:
            for position, cell in enumerate(self.cells):
                if cell.role is Role.PICTURE:
                    self.calm.set()
                if cell.role is not Role.TEXT:
                    await self._cell(position, cell)
        except BrowserError as error:
            self.trouble = str(error)
        finally:
            self.calm.set()
            self._cut()

    async def wait_began(self) -> float:
        """When the first printing cell was sent; waits for it."""
        await self._began.wait()
        assert self.began is not None, "the event is set after the time"
        return self.began

    async def save(self) -> None:
        """Store the notebook with what came. Raises BrowserError."""
        outputs: dict[int, CellOutputs] = {
            position: record.outputs() for position, record in self._records.items()
        }
        await self._browser.save(self._path, document(self.cells, outputs))

    async def close(self) -> None:
        await self._stack.aclose()

    def spells(self) -> tuple[Spell, ...]:
        """The lines' times, kernel by kernel."""
        last = len(self._kernels) - 1
        return tuple(
            Spell(tuple(sorted(at for record in records for at in record.times)), lost=n < last)
            for n, records in enumerate(self._kernels)
        )

    @property
    def last_line(self) -> float:
        """When the last line came; 0: none did."""
        return max((r.times[-1] for r in self._records.values() if r.times), default=0.0)

    @property
    def kernels_lost(self) -> int:
        return len(self._kernels) - 1

    @property
    def lines(self) -> int:
        """How many lines came."""
        return sum(len(record.lines) for record in self._printing())

    @property
    def expected(self) -> int:
        """How many lines a whole run has."""
        return sum(cell.lines for cell in self.cells)

    def verdict(self, kills: list[Kill], *, interrupted: bool) -> Verdict:
        """What came of it so far. Reads the side file."""
        asked = [r for r in self._records.values() if r.cell.role is Role.PICTURE]
        outcomes: list[CellOutcome] = [record.outcome() for record in self._printing()]
        return judge(
            outcomes,
            runs=count_runs(self._side_file.read_text()) if self._side_file.exists() else {},
            kills=kills,
            spells=self.spells(),
            steps=asked[0].steps if asked else None,
            reconnects=sum(tab.reconnects for tab in self._tabs),
            interrupted=interrupted,
            trouble=self.trouble,
        )

    async def _cell(self, position: int, cell: NotebookCell) -> None:
        record = self._records[position] = CellRecord(cell)
        if cell.role is Role.STEPS:
            self.current = record
            self.began = self._clock() if self.began is None else self.began
            self._began.set()
            self._note(f"cell {cell.number} runs")
        self._kernels[-1].append(record)
        try:
            await self._tabs[-1].run(record)
        except KernelLost as loss:
            self._say(f"cell {cell.number or cell.role.value} was lost: {loss}")
            await self._replace_kernel()

    async def _replace_kernel(self) -> None:
        """A new kernel that knows the setup. Raises BrowserError after _NEW_KERNEL seconds."""
        self._kernels.append([])
        deadline = self._clock() + _NEW_KERNEL
        while True:
            try:
                await self._attach(await self._browser.start_kernel())
                setup = next(cell for cell in self.cells if cell.role is Role.SETUP)
                await self._tabs[-1].run(CellRecord(setup))
            except (BrowserError, KernelLost) as error:
                if self._clock() > deadline:
                    raise BrowserError(f"no new kernel: {error}") from error
                await asyncio.sleep(_AGAIN)
            else:
                self._say("a new kernel is there; what the old one knew is gone")
                return

    async def _attach(self, kernel_id: str) -> None:
        tab = Tab(self._browser, kernel_id, clock=self._clock)
        await self._stack.enter_async_context(tab)
        self._tabs.append(tab)

    def _cut(self) -> None:
        if self.current is not None and not self.current.done and not self._kernel_was_lost():
            self.current.cut = True

    def _kernel_was_lost(self) -> bool:
        return self.current is not None and self.current not in self._kernels[-1]

    def _printing(self) -> list[CellRecord]:
        return [r for r in self._records.values() if r.cell.role is Role.STEPS]
