"""One start of a kernel as the agent sees it, and what a call may do with it: pure decisions.

It knows phases and files' contents; it must not do I/O beyond a stat for the activity, and must
not know HTTP. An incarnation is named by its start nonce: a kernel id may have many, one at most
alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from holdfast_launcher.agent.succession import TakeoverBudget
from holdfast_launcher.config import is_wildcard
from holdfast_launcher.engines.contract import Keeper
from holdfast_launcher.environment import kernel_mark
from holdfast_launcher.state.keeper_files import ActivityReader, KeeperFile


class Phase(Enum):
    """Where an incarnation stands. The keeper's process lives in all but REPLACING and DEAD."""

    STARTING = "starting"  # no keeper.json yet
    ADOPTING = "adopting"  # found after our restart; its process lives, it has not answered yet
    ALIVE = "alive"  # ours: it was launched by us, or it answered with our nonce
    REPLACING = "replacing"  # its keeper fell, its kernel lives, another keeper is coming up
    DISPUTED = "disputed"  # its process lives, but something else answers at its endpoint
    DEAD = "dead"  # on evidence; stays until it is deleted or another incarnation follows


class Answer(Enum):
    """What a PUT does."""

    START = "start a keeper"
    HANDLE = "answer what there is"
    WAIT = "it is coming up: wait, then decide again"
    CONFLICT = "another incarnation lives"
    BURIED = "this incarnation was deleted"
    NOT_NOW = "its keeper cannot be spoken to"


@dataclass(slots=True, eq=False)
class Incarnation:
    """``file`` is there while a keeper is ready. Mutable; the agent's loop owns it."""

    kernel_id: str
    nonce: str
    directory: Path
    spec: str | None = None
    user: str | None = None
    phase: Phase = Phase.STARTING
    keeper: Keeper | None = None
    file: KeeperFile | None = None
    reason: str | None = None
    #: A keeper of it was ready once: it may have run something.
    begun: bool = False
    #: Its end was asked for: no news for anybody.
    ending: bool = False
    takeovers: TakeoverBudget = field(default_factory=TakeoverBudget)
    activity: ActivityReader = field(init=False)

    def __post_init__(self) -> None:
        self.activity = ActivityReader(self.directory)

    def __repr__(self) -> str:
        return f"Incarnation({self.kernel_id}, {self.phase.value}, {self.keeper!r})"

    @property
    def alive(self) -> bool:
        return self.phase is not Phase.DEAD

    @property
    def presentable(self) -> bool:
        """Dead, or with an endpoint where its own keeper is known or expected to answer."""
        return not self.alive or (self.file is not None and self.phase is not Phase.DISPUTED)

    @property
    def mark(self) -> str:
        """What its kernel's processes carry in their environment."""
        return kernel_mark(self.kernel_id, self.nonce)

    def take_file(self, found: KeeperFile) -> None:
        """Its keeper listens."""
        self.file, self.spec, self.user = found, found.spec, found.user
        self.begun = True

    def lose_keeper(self, reason: str) -> None:
        """Its keeper is gone, its kernel is to be taken over: nobody answers meanwhile."""
        if self.keeper is not None:
            self.keeper.release()
        self.keeper = self.file = None
        self.phase, self.reason = Phase.REPLACING, reason

    def handle(self, advertise_host: str) -> dict[str, Any]:
        """The wire's handle. It holds the keeper's credential while there is a keeper."""
        handle: dict[str, Any] = {
            "kernel_id": self.kernel_id,
            "nonce": self.nonce,
            "spec": self.spec,
            "user": self.user,
            "endpoint": None,
            "fingerprint": None,
            "credential": None,
            "engine_handle": dict(self.keeper.handle) if self.keeper is not None else {},
            "epoch": None,
            "alive": self.alive,
            "reason": self.reason,
        }
        if self.file is not None:
            handle["epoch"] = self.file.epoch
        if self.file is not None and self.alive:
            host = self.file.endpoint.host
            handle["endpoint"] = {
                "host": advertise_host if is_wildcard(host) else host,
                "port": self.file.endpoint.port,
            }
            handle["fingerprint"] = self.file.fingerprint
            handle["credential"] = self.file.credential
        return handle

    def beat(self) -> Mapping[str, Any]:
        """Its part of a heartbeat."""
        activity = self.activity.read()
        return {
            "nonce": self.nonce,
            "alive": self.alive,
            "reason": self.reason or activity.reason,
            "execution_state": activity.execution_state if self.alive else "dead",
            "last_activity": activity.last_activity,
            "connections": activity.connections if self.alive else 0,
        }


def decide_put(present: Incarnation | None, nonce: str, *, buried: str | None) -> Answer:
    """What to do for a PUT with ``nonce``. Pure.

    ``buried``: the nonce of the deleted incarnation; a PUT that was on its way while its kernel
    was deleted must not bring it back.
    """
    if present is None:
        return Answer.BURIED if buried == nonce else Answer.START
    if present.phase is Phase.DEAD:
        # An incarnation that never had a keeper has run nothing: the same start may be tried
        # again. One that had is history, and the caller must hear that.
        retry = present.nonce != nonce or not present.begun
        return Answer.START if retry else Answer.HANDLE
    if present.nonce != nonce:
        return Answer.CONFLICT
    if present.phase is Phase.DISPUTED:
        return Answer.NOT_NOW
    return Answer.WAIT if present.file is None else Answer.HANDLE
