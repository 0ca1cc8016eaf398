"""How full the kernels' logs are: keepers' states, asked within bounds when somebody looks.

Keepers are many and a page is looked at often, so: a state is good for some seconds, one look
asks a bounded number of keepers (those whose state is oldest first) with one deadline, and what
is not known yet is shown as unknown until a later look. Rejected: the fill in heartbeats, which
would write it to etcd every two seconds for a picture that mostly nobody looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast_proxy.cluster import KeeperEndpoint
from holdfast_proxy.ownership.calls.keepers import KeeperClient, KeeperError, KeeperState
from holdfast_proxy.ownership.clock import Clock

#: Seconds for which a state is good, and in which one look must be over.
KEEP = 4.0
DEADLINE = 0.8
#: Questions of one look, and how many of them are under way at a time.
MOST = 64
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class _Asked:
    at: float
    state: KeeperState | None


class LogFill:
    """The last states of keepers, by kernel."""

    def __init__(self, *, keepers: KeeperClient, clock: Clock) -> None:
        self._keepers = keepers
        self._clock = clock
        self._asked: dict[str, _Asked] = {}

    def __repr__(self) -> str:
        return f"<LogFill of {len(self._asked)} kernels>"

    async def look(self, endpoints: Mapping[str, KeeperEndpoint]) -> None:
        """Ask those keepers whose state is oldest. Raises nothing on purpose."""
        for gone in self._asked.keys() - endpoints.keys():
            del self._asked[gone]
        now = self._clock.now()
        due = [name for name in endpoints if now - self._asked_at(name) >= KEEP]
        due = sorted(due, key=self._asked_at)[:MOST]
        if not due:
            return
        slots = asyncio.Semaphore(_AT_ONCE)
        tasks = [asyncio.create_task(self._ask(name, endpoints[name], slots)) for name in due]
        try:
            await asyncio.wait(tasks, timeout=DEADLINE)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def state(self, kernel_id: str) -> KeeperState | None:
        """What the keeper said when it was last asked; None when it did not answer then."""
        asked = self._asked.get(kernel_id)
        return None if asked is None else asked.state

    def is_silent(self, kernel_id: str) -> bool:
        """It was asked and did not answer."""
        asked = self._asked.get(kernel_id)
        return asked is not None and asked.state is None

    def _asked_at(self, kernel_id: str) -> float:
        asked = self._asked.get(kernel_id)
        return float("-inf") if asked is None else asked.at

    async def _ask(
        self, kernel_id: str, endpoint: KeeperEndpoint, slots: asyncio.Semaphore
    ) -> None:
        async with slots:
            began = self._clock.now()
            try:
                state: KeeperState | None = await self._keepers.state(endpoint, timeout=DEADLINE)
            except KeeperError:
                state = None
            except asyncio.CancelledError:
                # The look is over. Whose turn came late, or not at all, comes first next time.
                if self._clock.now() - began >= DEADLINE / 2:
                    self._asked[kernel_id] = _Asked(self._clock.now(), None)
                raise
            self._asked[kernel_id] = _Asked(self._clock.now(), state)
