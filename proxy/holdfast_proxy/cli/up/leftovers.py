"""Processes that an earlier `holdfast up` on the same state directory left behind.

Normally none: children get SIGTERM when their parent dies. A child that was stopped, or that is
still on its way down, would hold a port or etcd's data directory. So each start reads who they
were (pid and start time) and ends those that live. Keepers and kernels are not among them: the
launchers of this run adopt those.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterable, Mapping
from typing import Any

from .identity import ProcessIdentity

_LOOK = 0.05


def to_json(children: Mapping[str, int]) -> dict[str, Any]:
    """What ``children.json`` holds for these running pids."""
    found = {name: ProcessIdentity.of(pid) for name, pid in children.items()}
    return {
        name: {"pid": identity.pid, "start_ticks": identity.start_ticks}
        for name, identity in found.items()
        if identity is not None
    }


def from_json(data: Any) -> dict[str, ProcessIdentity]:
    """The children that a file names and that still run."""
    if not isinstance(data, dict):
        return {}
    named: dict[str, ProcessIdentity] = {}
    for name, entry in data.items():
        try:
            identity = ProcessIdentity(int(entry["pid"]), int(entry["start_ticks"]))
        except (TypeError, KeyError, ValueError):
            continue
        if identity.alive:
            named[str(name)] = identity
    return named


async def end(processes: Iterable[ProcessIdentity], *, grace: float) -> None:
    """SIGTERM to each, SIGKILL to what is left after ``grace`` seconds; returns when all are
    gone. They are no children of ours, so there is nothing to wait on but /proc."""
    living = [process for process in processes if process.send(signal.SIGTERM)]
    for process in living:
        process.send(signal.SIGCONT)
    deadline = time.monotonic() + grace
    while living:
        if time.monotonic() > deadline:
            for process in living:
                process.send(signal.SIGKILL)
        await asyncio.sleep(_LOOK)
        living = [process for process in living if process.alive]
