"""One sitting: an analyst works through the notebook while faults strike at named stations.

The user does the same things in the same order whatever happens, and never reloads, clicks a
dialog away or runs a cell again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.lab.analysis import INTERVAL, Analysis, SideFiles
from support.lab.faults import FAULTS, Site
from support.processes import wait_until

#: Where a fault may strike: while text is printed, before the slider is moved, while the bar
#: moves, while a question waits, and when the large output is under way.
STATIONS = ("text", "slider", "progress", "question", "large")


@dataclass
class Sitting:
    """``strikes``: station → fault. ``outage``: seconds that the one in the text cell lasts."""

    site: Site
    analysis: Analysis
    notebook: Path
    pictures: Path
    strikes: Mapping[str, str] = field(default_factory=dict)
    outage: float = 0.0
    #: Longer than the slowest way back: JupyterLab waits up to 30 s before it asks a server again.
    patience: float = 180.0

    @property
    def side(self) -> SideFiles:
        return SideFiles(self.notebook.parent)

    async def work(self) -> None:
        """Every cell, the slider, the question; then save."""
        lab, number = self.site.lab, self.analysis.number
        await lab.run(number("setup"))
        await lab.wait_ran(number("setup"), seconds=self.patience)
        await lab.run(number("text"), number("plot"), number("slider"))
        await self._await_steps("text", 20)
        async with self._strike("text"):
            await self._outlast("text")
        await self._wait_ran("text", "plot", "slider")
        await self._move_slider(4)
        await lab.run(number("progress"), number("question"))
        await self._await_steps("progress", 10)
        async with self._strike("progress"):
            await self._await_steps("progress", 30)
        await lab.wait_question(self.patience)
        async with self._strike("question"):
            await lab.answer("Ada")
        await self._wait_ran("progress", "question")
        # Not earlier: JupyterLab runs no cell while another one asks.
        await lab.run(number("answer"), number("large"), number("end"))
        await self._await_steps("large", 1)
        async with self._strike("large"):
            pass
        await self._wait_ran("answer", "large", "end")
        await lab.wait_connected(self.patience)
        await lab.save()
        for name in ("text", "progress", "end"):
            await self._picture(f"end-{name}", cell=number(name))

    async def _move_slider(self, steps: int) -> None:
        async with self._strike("slider"):
            await self.site.lab.push_slider(steps)
        value = 3 + steps
        await self._until(lambda: self.side.slider[-1:] == [value], f"the slider at {value}")

    async def _outlast(self, cell: str) -> None:
        """Let the outage last, by what the kernel has done meanwhile."""
        whole = self.analysis.lines
        until = min(self.side.steps(cell) + int(self.outage / INTERVAL), whole)
        await self._until(lambda: self.side.steps(cell) >= until, f"{cell} going on unseen")

    @asynccontextmanager
    async def _strike(self, station: str) -> AsyncIterator[None]:
        name = self.strikes.get(station)
        if name is None:
            yield
            return
        fault = FAULTS[name]
        await fault.begin(self.site)
        try:
            yield
            await self._picture(f"{station}-{name}")
        finally:
            await fault.end(self.site)

    async def _wait_ran(self, *cells: str) -> None:
        numbers = [self.analysis.number(cell) for cell in cells]
        await self.site.lab.wait_ran(*numbers, seconds=self.patience + self.outage)

    async def _await_steps(self, cell: str, steps: int) -> None:
        await self._until(lambda: self.side.steps(cell) >= steps, f"{steps} steps of {cell}")

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        seconds = self.patience + 2 * self.outage
        await asyncio.to_thread(wait_until, condition, seconds=seconds, what=what)

    async def _picture(self, name: str, *, cell: int | None = None) -> None:
        await self.site.lab.screenshot(self.pictures / f"{name}.png", cell=cell)
