"""Kills the member that carries the notebook, at the times of a schedule, and sees what follows.

The decisions are the schedule's; here is what they need: a clock, signals, and a look at who
carries. A frozen member (SIGSTOP) is let go on after a while: nobody else would do it, since a
process that is stopped is not dead.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Callable, Sequence

from .execution import Execution
from .schedule import Wait, choose_target
from .site import Site
from .verdict import HORIZON, Kill, failovers

#: No kill so short before the planned end (seconds): no line might be left to come after it.
_TOO_LATE = 1.0
#: Seconds that a frozen member stays so: longer than a client takes to leave it.
FROZEN = 4.0
_LOOK = 0.05


class Killer:
    """Run ``run`` beside the notebook; ``kills`` grows. ``thaw`` in any case at the end."""

    def __init__(
        self,
        site: Site,
        execution: Execution,
        *,
        times: Sequence[float],
        seconds: float,
        how: signal.Signals,
        clock: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self.kills: list[Kill] = []
        self.failovers: list[float] = []
        self.skipped = 0
        self._site, self._execution = site, execution
        self._times, self._seconds, self._how = times, seconds, how
        self._clock, self._say = clock, say
        self._frozen: dict[str, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        return f"<Killer {self._how.name} {len(self.kills)} of {len(self._times)}>"

    @property
    def frozen(self) -> frozenset[str]:
        """The members that a SIGSTOP holds just now."""
        return frozenset(self._frozen)

    async def run(self) -> None:
        """Until the last kill, or until the printing cells are over."""
        began = await self._execution.wait_began()
        ends = [*self._times[1:], self._seconds - _TOO_LATE]
        for due, end in zip(self._times, ends, strict=True):
            await asyncio.sleep(max(0.0, began + due - self._clock()))
            kill = await self._kill(until=began + end)
            if kill is not None:
                await self._follow(kill)

    def thaw(self) -> None:
        """Let every frozen member go on. Idempotent."""
        for name in list(self._frozen):
            self._thaw(name)

    async def _kill(self, *, until: float) -> Kill | None:
        """The kill, as soon as it tells something; None when it never did before ``until``."""
        why = Wait.TOO_LATE
        while self._clock() < until and not self._execution.calm.is_set():
            carriers, ready = await asyncio.gather(self._site.carriers(), self._site.ready())
            target = choose_target(members=self._site.members, carriers=carriers, ready=ready)
            if isinstance(target, str):
                kill = Kill(self._clock(), target)
                if self._site.send(target, self._how):
                    self.kills.append(kill)
                    self._note_frozen(target)
                    return kill
            else:
                why = target
            await asyncio.sleep(_LOOK)
        if not self._execution.calm.is_set():
            self.skipped += 1
            self._say(f"nobody was killed this time: {why.value}")
        return None

    async def _follow(self, kill: Kill) -> None:
        """Wait until it is known what the kill did to the cell, and say it."""
        lost = self._execution.kernels_lost
        await asyncio.sleep(HORIZON)
        while not (  # noqa: ASYNC110 - three facts of two objects, and no hurry
            self._execution.last_line > kill.at + HORIZON
            or self._execution.kernels_lost > lost
            or self._execution.calm.is_set()
        ):
            await asyncio.sleep(_LOOK)
        (seconds,) = failovers([kill], self._execution.spells())
        self.failovers.append(seconds)
        what = "froze" if self._how is signal.SIGSTOP else "killed"
        after = (
            f"the cell went on after {seconds * 1000:,.0f} ms"
            if math.isfinite(seconds)
            else "the cell did not go on"
        )
        at = kill.at - (self._execution.began or kill.at)
        self._say(f"{at:5.1f} s  {what} {kill.target} ({self._how.name}): {after}")

    def _note_frozen(self, name: str) -> None:
        if self._how is signal.SIGSTOP:
            loop = asyncio.get_running_loop()
            self._frozen[name] = loop.call_later(FROZEN, self._thaw, name)

    def _thaw(self, name: str) -> None:
        timer = self._frozen.pop(name, None)
        if timer is not None:
            timer.cancel()
            self._site.send(name, signal.SIGCONT)
