"""Collects the exit statuses of every child, adopted orphans included.

The launcher is a subreaper, so keepers, and whatever a keeper that died leaves behind, become its
children; a child that nobody waits for stays a zombie. It knows waitpid(2) and must not know who
the children are: somebody who watches a pid asks for its status. Rejected: a wait per process
(orphans that nobody expects would stay), asyncio's child watchers (they want to have started the
child).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import OrderedDict

#: Statuses of pids nobody asked for yet: a child may end before its pid is known here.
_KEPT = 512


class Reaper:
    """Install on the main thread's loop; one per process."""

    def __init__(self) -> None:
        self._statuses: OrderedDict[int, int] = OrderedDict()

    def __repr__(self) -> str:
        return f"Reaper(unasked={len(self._statuses)})"

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGCHLD, self.collect)
        self.collect()

    def collect(self) -> None:
        """Take every status there is now; never blocks."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._statuses[pid] = status
            if len(self._statuses) > _KEPT:
                self._statuses.popitem(last=False)

    def take(self, pid: int) -> int | None:
        """The wait status of an ended child, once; None when it was not our child."""
        self.collect()
        return self._statuses.pop(pid, None)


def describe_status(status: int | None) -> str:
    """A wait status in words, to follow "the keeper"."""
    if status is None:
        return "ended, how is not known"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "unnamed"
        return f"was killed by signal {number} ({name})"
    return f"ended with exit code {os.waitstatus_to_exitcode(status)}"
