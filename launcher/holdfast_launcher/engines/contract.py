"""What an engine is: it starts keepers somewhere, finds them again, and proves that they ended.

An engine knows processes, jobs or pods; it must not know fences, HTTP, heartbeats or who owns a
kernel. The agent above decides, an engine acts. Evidence is the point of the contract (DESIGN
promise 7): ``alive`` is True until the infrastructure itself says that the keeper is gone, and
silence is not evidence.

Two kinds of engine. One that starts a keeper here and now implements ``launch``; its keeper writes
``keeper.json`` into the launcher's own directory. One that *queues*, or starts on another machine,
sets ``queues`` and implements ``submit``, which returns when the job can be found again; its
keeper dials back (``engines/remote``). How to write one: docs/reference/engines.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from signal import Signals
from typing import Any, ClassVar

from holdfast_launcher.engines.resources import Resources
from holdfast_launcher.keeper.config import KeeperConfig


class LaunchFailed(Exception):
    """No keeper came up and none of it is left; the message carries its last words."""


class Stage(Enum):
    """How far a keeper's start has come, as its infrastructure tells."""

    SUBMITTED = "submitted"  # handed over; whether it was taken is not known yet
    PENDING = "pending"  # accepted; it waits for its turn, the text says for what
    STARTING = "starting"  # it has its place; the keeper has not dialled back yet
    RUNNING = "running"
    ENDED = "ended"  # on evidence


class Cause(Enum):
    """Why a keeper and its kernel ended, as far as the infrastructure tells."""

    EXIT = "exit"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out of memory"
    TIME_LIMIT = "time limit"
    PREEMPTED = "pre-empted"
    NODE_LOST = "node lost"
    CANCELLED = "cancelled"
    NEVER_STARTED = "never started"
    LOST = "lost"  # the infrastructure never had it: the same start may be tried again
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """``text`` is the sentence that the user reads."""

    cause: Cause
    text: str
    exit_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What an engine knows of one keeper. ``text`` tells the user what it waits for, or why it
    ended; ``ending`` is there when ``stage`` is ENDED."""

    stage: Stage
    text: str
    ending: Ending | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DialBack:
    """Where a remote keeper says that it is there. ``token`` is a secret for one start: never in
    argv, a job's name or comment, or the environment."""

    url: str
    fingerprint: str | None
    token: str

    def __repr__(self) -> str:
        return f"DialBack(url={self.url!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One start. ``directory``: the launcher's own for this kernel, where an engine keeps what it
    needs to find the job again. ``mark`` tells this start from every other of the kernel id and
    is no secret. ``dial_back`` is None for engines that do not queue."""

    config: KeeperConfig
    directory: Path
    mark: str
    resources: Resources
    dial_back: DialBack | None = None


class Keeper(ABC):
    """One keeper that an engine started or found again."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """False only on evidence."""

    @property
    @abstractmethod
    def reason(self) -> str | None:
        """Why it is not alive, for the user; None while it is."""

    @property
    @abstractmethod
    def handle(self) -> Mapping[str, Any]:
        """What names it on the infrastructure: ``engine_handle`` on the wire."""

    @abstractmethod
    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call back once, on the loop, when ``alive`` turns False; soon if it is already."""

    @abstractmethod
    async def wait_gone(self, *, timeout: float) -> bool:
        """Wait until it is gone; False when ``timeout`` seconds passed first."""

    @abstractmethod
    def kill(self) -> None:
        """End it by force, without asking. Idempotent; ``wait_gone`` tells when."""

    @abstractmethod
    def release(self) -> None:
        """Stop watching and leave it alone: the launcher goes, the keeper stays."""

    def describe(self) -> JobState:
        """Where it stands, for the user; never asks anybody."""
        if self.alive:
            return JobState(stage=Stage.RUNNING, text="its keeper runs")
        text = self.reason or "the keeper is gone"
        return JobState(stage=Stage.ENDED, text=text, ending=Ending(cause=Cause.UNKNOWN, text=text))

    async def signal(self, number: Signals) -> None:
        """Send the keeper (not its kernel) a signal; nothing when it is gone.

        Raises LaunchFailed when the infrastructure refuses, OSError when it cannot be asked.
        """
        raise LaunchFailed(f"{type(self).__name__} can send no {number.name}")


class Engine(ABC):
    """All methods run on the agent's loop. One instance per launcher."""

    #: What heartbeat and handles call it.
    name: str
    #: A start may wait in a queue, and the keeper dials back: see ``submit``.
    queues: ClassVar[bool] = False
    #: Each kernel runs as its own user, so that kernels of several may be started.
    separates_users: bool = False
    #: Which of ``Resources`` it can give; asking others for what it ignores is refused, unless
    #: this is empty: then resources mean nothing here and requests for them are left alone.
    resources: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    async def start(self) -> None:
        """Get ready to launch; quick, what takes long goes on in the background."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything; keepers and kernels stay (DESIGN promise 5). Idempotent."""

    @abstractmethod
    async def launch(self, config: KeeperConfig) -> Keeper:
        """Start a keeper; return when its ``keeper.json`` is in ``config.state_dir``.

        Raises LaunchFailed; then no process of this launch is left. Raises OSError or
        RuntimeError when there is nothing to start one with (descriptors, threads, memory); then
        ``find`` tells whether a keeper came of it all the same.
        """

    async def submit(self, submission: Submission) -> Keeper:
        """Hand a start over; return as soon as ``find`` would find it, also after a crash.

        Idempotent by ``submission.mark``: a job that an earlier call with this mark left is
        answered, not started again. Raises LaunchFailed with the infrastructure's own words when
        it refuses; then nothing of this start is left. Raises OSError or RuntimeError when it
        cannot be asked; then ``find`` tells whether something came of it.
        """
        return await self.launch(submission.config)

    @abstractmethod
    async def find(self, directory: Path) -> Keeper | None:
        """The keeper that lives in a kernel's state directory, or None on evidence of none.

        An engine whose infrastructure does not answer now gives a keeper that it cannot see
        (alive: silence is no evidence) and goes on asking.
        """

    @abstractmethod
    async def end_kernel(self, directory: Path, *, mark: str, timeout: float) -> bool:
        """End by force whatever a keeper that is gone left running: its kernel and what that
        started (known by ``mark`` in the environment). True when proven that nothing is left."""
