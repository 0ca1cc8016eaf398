"""When the state is written: soon after it changed, rarely, and never on the event loop.

``settle`` is for what must be on the disk before a client is answered; ``noted`` for the rest.
It must not know what the state means, nor where the file is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from logging import Logger
from typing import Final

from .state_file import StateFile

#: Seconds from a change to its being written, and between two writes of such changes.
SOON: Final = 0.05
APART: Final = 0.25
#: Seconds from a write that failed to the next try, whether anything changed or not.
AGAIN: Final = 2.0


class Bookkeeper:
    """Writes what ``text`` gives into ``file``."""

    def __init__(self, file: StateFile, text: Callable[[], str], log: Logger) -> None:
        self._file = file
        self._text = text
        self._log = log
        self._turn = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._written = ""
        self._durable = ""
        self._last = float("-inf")
        self._failing = False
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "failing" if self._failing else "well"
        return f"<Bookkeeper {self._file!r} {state}>"

    def noted(self) -> None:
        """Something changed: it will be written soon. Cheap, and from the event loop."""
        if self._timer is None and not self._closed:
            loop = asyncio.get_running_loop()
            at = max(loop.time() + SOON, self._last + APART)
            self._timer = loop.call_at(at, self._begin_writing)

    async def settle(self) -> None:
        """Return when what is now is on the disk, or cannot be written (which is logged)."""
        if not self._closed:
            # shielded: a write that has begun goes on in its thread, whoever stops waiting
            await asyncio.shield(self._start(durable=True))

    def close(self) -> list[asyncio.Task[None]]:
        """Write a last time, and give the file up. Blocks; idempotent. Gives the tasks that are
        ending: what they had to write has been written, or is older."""
        if self._closed:
            return list(self._tasks)
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._file.write(self._text(), durable=True)
        except OSError as error:
            self._complain(error)
        self._file.release()
        return list(self._tasks)

    def _begin_writing(self) -> None:
        self._timer = None
        # what failed may have been a ``settle``, which is owed the disk
        self._start(durable=self._failing)

    def _start(self, *, durable: bool) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._write(durable=durable))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(self, *, durable: bool) -> None:
        async with self._turn:
            text = self._text()
            if text == (self._durable if durable else self._written) or self._closed:
                return
            try:
                await asyncio.to_thread(self._file.write, text, durable=durable)
            except OSError as error:
                self._complain(error)
                self._try_again()
                return
            self._written = text
            self._durable = text if durable else ""
            self._last = asyncio.get_running_loop().time()
            self._failing = False

    def _try_again(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(AGAIN, self._begin_writing)

    def _complain(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._log.warning(
                "holdfast: %s cannot be written (%s): a restart of this notebook server would "
                "now lose sight of kernels that it has started",
                self._file.path, error,
            )  # fmt: skip
