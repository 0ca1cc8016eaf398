"""Whose dial to a keeper is next: a bounded number at a time, first come, first served.

After another proxy's death thousands ask at once. Dialled all together, each takes longer than
its client waits, and the work is done for nobody. In turns, each dial is quick, and a client that
has left meanwhile costs nothing. A dial that takes long lets the next one begin, so keepers that
do not answer hold nobody up. Must not know what a dial is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

AT_ONCE: Final = 32
#: After so many seconds a turn is over whether its dial is or not.
TURN_SECONDS: Final = 0.5


class Turns:
    """``take`` one for each dial."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = asyncio.Semaphore(at_once)
        self.waiting = 0

    def __repr__(self) -> str:
        return f"<Turns {self.waiting} waiting>"

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a turn and have it for the block, but for TURN_SECONDS at most."""
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self._free.release)
        try:
            yield
        finally:
            if asyncio.get_running_loop().time() < timer.when():
                timer.cancel()
                self._free.release()
