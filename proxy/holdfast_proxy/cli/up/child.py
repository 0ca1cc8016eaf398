"""One supervised process: started, watched, restarted when it dies, stopped when asked.

It knows a process, a probe and a restart rule; it must not know which program it runs or what the
others do. A process that is stopped (SIGSTOP) or busy is not dead: only its exit counts, and while
it starts, a deadline. Rejected: health checks that restart a slow child; a proxy that is slow
still carries tunnels.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .backoff import Backoff
from .identity import ProcessIdentity
from .probe import Probe
from .spawning import INHERIT, spawn

#: Seconds between two looks at a probe.
_LOOK = 0.03
Spawn = Callable[[Sequence[str], Mapping[str, str], Path, int], Awaitable[Process]]


class Phase(Enum):
    """What a child is doing."""

    WAITING = "waiting"  # to be started, or started again
    STARTING = "starting"
    READY = "ready"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to run. ``kind`` groups children of one program; times are seconds.

    ``private``: it writes files for nobody else (umask 077). Not for what starts kernels, whose
    files are the user's own affair.
    """

    name: str
    kind: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    probe: Probe
    start_timeout: float = 60.0
    private: bool = False

    def __repr__(self) -> str:
        # Without the environment: JupyterLab's holds the gateway token.
        return f"ChildSpec({self.name}: {' '.join(self.argv)})"


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """A child entered ``phase``; ``detail`` is for people (how it died, when it comes back)."""

    name: str
    phase: Phase
    pid: int | None
    detail: str = ""


class StartFailed(Exception):
    """The child ``name`` did not become ready at the tree's start; the message says why."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Child:
    """Runs one ChildSpec until it is stopped. ``listener`` is called on the loop, in order."""

    def __init__(
        self,
        spec: ChildSpec,
        listener: Callable[[ChildEvent], None],
        *,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        spawn: Spawn = spawn,
    ) -> None:
        self.spec = spec
        self.phase = Phase.WAITING
        self.url: str | None = None
        self._listener = listener
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._spawn = spawn
        self._process: Process | None = None
        self._stopping = False
        self._ever_ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Child {self.spec.name} {self.phase.value} pid={self.pid} {self._backoff}>"

    @property
    def pid(self) -> int | None:
        """The pid of the running process; None between two runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        """Begin supervising. Call once, on the running loop."""
        self._task = asyncio.create_task(self._supervise(), name=f"child {self.spec.name}")

    async def wait_ready(self, *, attempts: int = 3) -> None:
        """Return when the child is ready for the first time.

        Raises StartFailed when it died ``attempts`` times first, or was stopped.
        """
        ready = asyncio.create_task(self._ever_ready.wait())
        try:
            while not ready.done():
                await asyncio.wait({ready}, timeout=_LOOK)
                if not ready.done() and (self._backoff.failures >= attempts or self._task_over()):
                    raise StartFailed(self.spec.name, f"{self.spec.name} does not start")
        finally:
            ready.cancel()

    async def stop(self, *, grace: float) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds; returns when the process is gone."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a stopped process acts on nothing else
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace)
        self.kill()
        if self._task is not None:
            await asyncio.gather(self._cancelled_between_runs(), return_exceptions=True)

    def kill(self) -> None:
        """SIGKILL to the child and its process group, at once. Idempotent."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    async def _cancelled_between_runs(self) -> None:
        """Wait for the supervising task; end its wait for a next run that will not come."""
        assert self._task is not None
        if self.pid is None:
            self._task.cancel()
        await self._task

    def _is_stopping(self) -> bool:
        # A method, because the type checker takes the attribute for unchanged across an await.
        return self._stopping

    def _task_over(self) -> bool:
        return self._task is None or self._task.done()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _supervise(self) -> None:
        try:
            while not self._stopping:
                ready_for, how = await self._run_once()
                self._backoff = self._backoff.after_exit(ready_for)
                if self._is_stopping():
                    break
                delay = self._backoff.delay
                when = f", again in {delay:g} s" if delay else ", starting again"
                self._enter(Phase.WAITING, how + when)
                await asyncio.sleep(delay)
        finally:
            self._enter(Phase.STOPPED)

    async def _run_once(self) -> tuple[float | None, str]:
        """One life of the process: how long it was ready (None: never), and how it ended."""
        self.spec.probe.forget()
        self.url = None
        try:
            umask = 0o077 if self.spec.private else INHERIT
            process = await self._spawn(self.spec.argv, self.spec.env, self.spec.log, umask)
        except OSError as error:
            return None, f"cannot be started: {error}"
        self._process = process
        if self._stopping:  # stop() came while the process was being made and saw none
            self.kill()
        self._enter(Phase.STARTING)
        exited = asyncio.create_task(process.wait())
        try:
            ready_at = await self._become_ready(process, exited)
            await exited
        finally:
            exited.cancel()
        ready_for = None if ready_at is None else self._clock() - ready_at
        return ready_for, _describe_exit(process.returncode)

    async def _become_ready(self, process: Process, exited: asyncio.Task[int]) -> float | None:
        """When the process became ready; None when it ended, or was ended for its delay."""
        deadline = self._clock() + self.spec.start_timeout
        identity = ProcessIdentity.of(process.pid)
        while not exited.done():
            url = await self.spec.probe.look(process.pid)
            if url is not None and not exited.done():
                self.url = url
                now = self._clock()
                self._enter(Phase.READY)
                self._ever_ready.set()
                return now
            if self._clock() > deadline and identity is not None and not identity.stopped:
                self._kill_overdue(process)
                return None
            await asyncio.wait({exited}, timeout=_LOOK)
        return None

    def _kill_overdue(self, process: Process) -> None:
        """End a run that never became ready, without ending the supervision."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def _enter(self, phase: Phase, detail: str = "") -> None:
        self.phase = phase
        self._listener(ChildEvent(self.spec.name, phase, self.pid, detail))


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"ended with exit code {code}"
