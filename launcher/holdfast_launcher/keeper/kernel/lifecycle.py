"""The kernel's life as data: states, transitions, the crash budget, and why it died. Pure.

::

    NEW ── LAUNCH ──> STARTING ── READY ──> RUNNING ── RESTART | CRASH ──> RESTARTING
     RESTARTING ── READY ──> RUNNING, ── CRASH ──> RESTARTING (once more)
     STARTING | RUNNING | RESTARTING ── GIVE_UP ──> DEAD ── RESTART ──> RESTARTING, LAUNCH ──> …
     any ── SHUTDOWN ──> CLOSED

DEAD may be brought back by somebody who asks; CLOSED is for good. Time is passed in.
"""

from __future__ import annotations

import signal
from collections import deque
from enum import Enum
from typing import Final

from holdfast_protocol.errors import InvalidState


class State(Enum):
    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    DEAD = "dead"
    CLOSED = "closed"


class Event(Enum):
    LAUNCH = "launch"
    READY = "ready"
    RESTART = "restart"
    CRASH = "crash"
    GIVE_UP = "give up"
    SHUTDOWN = "shutdown"


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.NEW, Event.LAUNCH): State.STARTING,
    (State.DEAD, Event.LAUNCH): State.STARTING,
    (State.STARTING, Event.READY): State.RUNNING,
    (State.STARTING, Event.GIVE_UP): State.DEAD,
    (State.RUNNING, Event.RESTART): State.RESTARTING,
    (State.RUNNING, Event.CRASH): State.RESTARTING,
    (State.RUNNING, Event.GIVE_UP): State.DEAD,
    (State.RESTARTING, Event.READY): State.RUNNING,
    (State.RESTARTING, Event.CRASH): State.RESTARTING,
    (State.RESTARTING, Event.GIVE_UP): State.DEAD,
    (State.DEAD, Event.RESTART): State.RESTARTING,
    **{(state, Event.SHUTDOWN): State.CLOSED for state in State},
}


def advance(state: State, event: Event) -> State:
    """The next state. Raises InvalidState when the table has none."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InvalidState(f"a kernel that is {state.value} cannot {event.value}") from None


class Activity:
    """Idle or busy, from iopub ``status`` messages of any parent.

    A kernel is busy while one of its requests is: the idle of an interrupt on control does not
    make a running cell idle. An idle without a parent settles everything.
    """

    def __init__(self) -> None:
        self._busy: set[str] = set()
        self._unsure = False

    def __repr__(self) -> str:
        return f"Activity({self.state}, {len(self._busy)} open)"

    @property
    def state(self) -> str:
        return "busy" if self._busy else "idle"

    def observe(self, status: str, parent_id: str) -> None:
        if status == "busy":
            self._busy.add(parent_id)
        elif status == "idle" and parent_id and not self._unsure:
            self._busy.discard(parent_id)
        elif status == "idle":
            self._busy.clear()
            self._unsure = False

    def doubt(self) -> None:
        """Messages were lost, an idle may be among them: the next one settles everything.

        Until then the kernel stays busy: taking a working kernel for idle could get it culled.
        """
        self._unsure = True


class CrashBudget:
    """At most ``limit`` automatic restarts within ``window`` seconds."""

    def __init__(self, limit: int, window: float = 60.0) -> None:
        self._limit = limit
        self._window = window
        self._crashes: deque[float] = deque()

    def __repr__(self) -> str:
        return f"CrashBudget({len(self._crashes)} of {self._limit} in {self._window:g} s)"

    def spend(self, now: float) -> bool:
        """A crash at ``now`` (seconds, monotonic): may the kernel be started again?"""
        while self._crashes and now - self._crashes[0] > self._window:
            self._crashes.popleft()
        if len(self._crashes) >= self._limit:
            return False
        self._crashes.append(now)
        return True


def exit_reason(returncode: int | None) -> str:
    """Why a process ended, for a person. ``returncode`` as subprocess has it; None: unknown."""
    if returncode is None:
        return "the kernel process ended (its exit status went to another process)"
    if returncode >= 0:
        return f"the kernel process exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    guess = " (perhaps it ran out of memory)" if -returncode == signal.SIGKILL else ""
    return f"the kernel process was killed by {name}{guess}"
