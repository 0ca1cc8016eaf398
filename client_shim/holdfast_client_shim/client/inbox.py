"""What a kernel has sent and the notebook's program has not taken yet, by channel.

Filled in the background thread, read in whatever loop the program runs, one run after another or
in several. The end of a kernel is heard on the request channels only after iopub was read, so
that a cell has its last words when its execution fails.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty
from typing import Final

from holdfast_protocol.jupyter import CHANNELS

from .background import look_again

#: Seconds after the end until it is heard on the request channels though nobody reads iopub,
#: and on iopub: who waits for an answer as well is to hear of it there, where the reason is told.
PATIENCE: Final = 0.5
IOPUB_PATIENCE: Final = 2.0

_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class Ended(Exception):
    """Nothing more will come; carries the reason."""


class Inbox:
    """Messages as v1 bytes. ``relieved`` is called, in the reader's thread, when bytes were taken.

    Every method may be called from any thread; ``put`` and ``end`` never wait.
    """

    def __init__(self, *, relieved: Callable[[], None] = lambda: None) -> None:
        self._relieved = relieved
        self._lock = threading.Lock()
        self._queues: dict[str, deque[bytes]] = {name: deque() for name in CHANNELS}
        self._waiters: dict[str, list[_Waiter]] = {name: [] for name in CHANNELS}
        self._end: tuple[str, float] | None = None
        #: Bytes that wait here, and how many messages were taken so far.
        self.unread = 0
        self.taken = 0

    def __repr__(self) -> str:
        state = "open" if self._end is None else f"ended: {self._end[0]}"
        return f"<Inbox {sum(map(len, self._queues.values()))} messages, {state}>"

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for a message on an empty channel."""
        with self._lock:
            return any(self._waiters.values())

    @property
    def ended(self) -> str | None:
        """Why nothing more will come; None while something may."""
        return None if self._end is None else self._end[0]

    @property
    def over(self) -> bool:
        """Whether the end is heard on every channel."""
        return self._end is not None and time.monotonic() >= self._end[1] + IOPUB_PATIENCE

    def put(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Take messages in, each with its channel."""
        with self._lock:
            for channel, data in messages:
                self._queues[channel].append(data)
                self.unread += len(data)
                self._wake(channel)

    def end(self, reason: str) -> None:
        """Nothing more will come that matters. Only the first reason counts."""
        with self._lock:
            if self._end is None:
                self._end = (reason, time.monotonic())
            self._wake(*self._waiters)

    def ready(self, channel: str) -> bool:
        """Whether a message waits on ``channel``."""
        with self._lock:
            return bool(self._queues[channel])

    async def get(self, channel: str, timeout: float | None = None) -> bytes:
        """The next message of ``channel``, after ``timeout`` seconds at most (None: for ever).

        Raises queue.Empty when none came in time, Ended when none will.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                data = self._take(channel)
                if data is None:
                    now = time.monotonic()
                    wait = self._wait_at_most(channel, deadline, now)
                    waiter = self._join(channel)
            if data is not None:
                self._relieved()
                return data
            try:
                async with asyncio.timeout(wait):
                    await waiter[1]
            except TimeoutError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise Empty from None
            finally:
                with self._lock, suppress(ValueError):
                    self._waiters[channel].remove(waiter)

    def _take(self, channel: str) -> bytes | None:
        queue = self._queues[channel]
        if not queue:
            return None
        data = queue.popleft()
        self.unread -= len(data)
        self.taken += 1
        if self._end is not None and channel == "iopub" and not queue:
            self._wake(*self._waiters)
        return data

    def _wait_at_most(self, channel: str, deadline: float | None, now: float) -> float | None:
        """Seconds until there is something to look at again. Raises Ended, Empty."""
        times = [] if deadline is None else [deadline]
        if self._end is not None:
            reason, since = self._end
            heard = since + (IOPUB_PATIENCE if channel == "iopub" else PATIENCE)
            if now >= heard or (channel != "iopub" and not self._queues["iopub"]):
                raise Ended(reason)
            times.append(heard)
        if deadline is not None and now >= deadline:
            raise Empty
        again = look_again()
        if again is not None:
            times.append(now + again)
        return min(times) - now if times else None

    def _join(self, channel: str) -> _Waiter:
        loop = asyncio.get_running_loop()
        waiter = (loop, loop.create_future())
        self._waiters[channel].append(waiter)
        return waiter

    def _wake(self, *channels: str) -> None:
        for channel in channels:
            waiters, self._waiters[channel] = self._waiters[channel], []
            for loop, future in waiters:
                with suppress(RuntimeError):  # a loop that was closed meanwhile waits for nothing
                    loop.call_soon_threadsafe(_release, future)


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
