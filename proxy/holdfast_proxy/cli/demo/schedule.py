"""When a proxy is killed, and which one: pure rules, no clock and no process.

A kill must tell something. So the one that carries the notebook is hit, not any; and only while
another one can take over, because an outage of every proxy measures how fast a process starts.
With a single member there is no other: then every kill is an outage, and that is what is shown.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from enum import Enum

#: Seconds at the end without a kill: a failover that nobody could see would count as none.
QUIET_END = 2.5


class Wait(Enum):
    """Why nobody can be killed just now; the value is for people."""

    NO_CARRIER = "the notebook's connection could not be found at one proxy"
    NO_SPARE = "no other proxy was ready"
    NOT_READY = "the only one was not ready, or the notebook not back at it"
    TOO_LATE = "the kill before took until now"


def kill_times(*, seconds: float, every: float, seed: int | None) -> tuple[float, ...]:
    """Seconds after the first cell's start at which somebody is killed.

    Regular without ``seed``; with it the pauses are between half and one and a half of ``every``,
    the same ones for the same seed.
    """
    rng = random.Random(seed)  # noqa: S311 - it must be repeatable, and hides nothing
    times: list[float] = []
    now = 0.0
    while True:
        now += every if seed is None else every * rng.uniform(0.5, 1.5)
        if now > seconds - QUIET_END:
            return tuple(times)
        times.append(now)


def choose_target(
    *, members: Collection[str], carriers: Collection[str], ready: Collection[str]
) -> str | Wait:
    """Who is killed now, or why nobody.

    ``carriers``: those that the notebook server has connections to. A short request beside the
    notebook's own connection makes it two for a moment; then the next look decides.
    """
    if len(members) == 1:
        (only,) = members
        return only if only in ready and only in carriers else Wait.NOT_READY
    if len(carriers) != 1:
        return Wait.NO_CARRIER
    (carrier,) = carriers
    return carrier if set(ready) - {carrier} else Wait.NO_SPARE
