"""How late the event loop is: what nobody asked for in time, nobody was answered in time.

A task sleeps a short while and sees how much longer it was. The clock and the sleep are passed in,
so that a test needs neither time nor load. What stands still as a whole (SIGSTOP) is one long lag.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

#: Seconds between two looks: often enough to meet most stalls above 50 ms.
LOOK_SECONDS: Final = 0.1


async def watch_loop(
    observe: Callable[[float], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Tell ``observe`` the lag in seconds after each look, for ever."""
    while True:
        due = clock() + LOOK_SECONDS
        await sleep(LOOK_SECONDS)
        observe(max(0.0, clock() - due))
