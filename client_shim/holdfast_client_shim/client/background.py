"""The thread in which this process talks to gateways, with an event loop of its own.

nbclient and papermill run their loop only while they wait for something; pings, resumes and
acknowledgements must go on between two cells, and while a callback of the user blocks. So what
talks to gateways lives here, one thread for all kernels of the process, and is a daemon: it never
keeps a program from ending, and still works in ``atexit`` handlers. Rejected: the caller's loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Seconds for something that only has to be said in the other thread.
SAYING: Final = 30.0
#: Seconds after which a waiting loop of a forked process looks again, see ``look_again``.
FORKED: Final = 0.1


class Background:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="holdfast gateways", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Background {'running' if self._thread.is_alive() else 'ended'}>"

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` there; a cancellation here cancels it there."""
        result = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))
        try:
            while not result.done():
                await asyncio.wait({result}, timeout=look_again())
        except asyncio.CancelledError:
            result.cancel()
            raise
        return result.result()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Have ``function`` called there and wait for its result: it must not wait itself."""

        async def called() -> T:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(SAYING)

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Have ``function`` called there some time soon."""
        self.loop.call_soon_threadsafe(function, *args)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


_lock = threading.Lock()
_current: Background | None = None
_forked = False


def background() -> Background:
    """The process's one, started with the first call."""
    global _current
    with _lock:
        if _current is None:
            _current = Background()
        return _current


def look_again() -> float | None:
    """Seconds after which a loop that waits for another thread is to look for itself; None: never.

    jupyter_core keeps one loop for each thread, also over a fork: the children of a process pool
    then share its selector and its self-pipe, and one reads what was to wake the other.
    """
    return FORKED if _forked else None


def _forget() -> None:
    """A forked child has the parent's loop and not its thread."""
    global _current, _lock, _forked
    _lock = threading.Lock()
    _current = None
    _forked = True


os.register_at_fork(after_in_child=_forget)
