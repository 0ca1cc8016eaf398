"""One eye on Slurm for all jobs of a launcher: one squeue for all of them, and rarely.

How often depends on who waits: somebody who wants to know that a job is gone makes it quick, an
idle cluster is asked every few seconds. What a job's state means is ``states``'; that a job which
Slurm calls ended may have a living keeper is heeded here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from signal import Signals

import structlog

from holdfast_launcher.engines.contract import Cause, Ending, JobState, Stage
from holdfast_launcher.engines.remote.desk import CLAIM_FILE
from holdfast_launcher.engines.remote.keeper import WatchedKeeper
from holdfast_launcher.engines.remote.presence import keeper_answers
from holdfast_launcher.engines.slurm.commands import Commands, SlurmAway, SlurmRefused
from holdfast_launcher.engines.slurm.job_files import JobFile
from holdfast_launcher.engines.slurm.settings import SlurmSettings
from holdfast_launcher.engines.slurm.states import Job, describe, read_jobs
from holdfast_launcher.engines.zygote import LOG_FILE
from holdfast_launcher.state.keeper_files import read_keeper_file
from holdfast_launcher.state.statefiles import write_private

#: Between two looks while somebody waits for news.
_QUICK = 0.25
#: How long it stays quick after somebody asked.
_HURRY = 10.0
#: How long a job that Slurm does not know may still come of an sbatch that is on its way, or be
#: missing from a controller that is reading its own state.
_MISSING = 6.0
_OUTPUT_BYTES = 8192

_log = structlog.get_logger(__name__)


class Watched(WatchedKeeper):
    """A job of ours."""

    def __init__(
        self,
        *,
        file: JobFile,
        directory: Path,
        state: JobState,
        watch: Watch,
        send_signal: Callable[[Signals], Awaitable[None]],
    ) -> None:
        identity = {"engine": "slurm", "job": None if file.job is None else str(file.job)}
        super().__init__(
            identity=identity,
            state=state,
            cancel=lambda: watch.cancel(self),
            send_signal=send_signal,
        )
        self.file = file
        self.directory = directory
        self.job = file.job
        self._watch = watch
        self.begun = time.monotonic()
        #: When it began to wait, to run without a keeper, to be missing; None: it does not.
        self.pending_since: float | None = None
        self.running_since: float | None = None
        self.missing_since: float | None = None
        self.cancelled: str | None = None

    async def wait_gone(self, *, timeout: float) -> bool:
        if self.alive:
            self._watch.hurry(timeout)
        return await super().wait_gone(timeout=timeout)

    @property
    def claimed(self) -> bool:
        """A process of it was told what to run."""
        return (self.directory / CLAIM_FILE).exists()

    @property
    def dialled_back(self) -> bool:
        return read_keeper_file(self.directory) is not None

    def output(self) -> str:
        """The end of what the job itself said."""
        if self.file.output is None:
            return ""
        with contextlib.suppress(OSError), open(self.file.output, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _OUTPUT_BYTES))
            return file.read().decode("utf-8", "replace")
        return ""


class Watch:
    """``name``: what all jobs of this launcher are called."""

    def __init__(self, *, settings: SlurmSettings, commands: Commands, name: str) -> None:
        self._settings = settings
        self._commands = commands
        self._name = name
        self._keepers: list[Watched] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._quick_until = 0.0
        self._away_since: float | None = None
        self._cancels: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Watch({len(self._keepers)} jobs)"

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Look no more. What was cancelled stays so. Idempotent."""
        tasks = [task for task in (self._task, *self._cancels) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None

    def add(self, keeper: Watched) -> None:
        self._keepers.append(keeper)
        self.hurry(_HURRY)

    def hurry(self, seconds: float) -> None:
        """Somebody waits: look often for a while."""
        self._quick_until = max(self._quick_until, time.monotonic() + seconds)
        self._wake.set()

    def cancel(self, keeper: Watched, why: str = "it was asked to end") -> None:
        """Begin to end it by force."""
        keeper.cancelled = keeper.cancelled or why
        task = asyncio.get_running_loop().create_task(self._cancel(keeper))
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def look_up(self, comment: str) -> Job | None:
        """The job with this comment, the oldest when there are several. Raises SlurmAway."""
        jobs = read_jobs(await self._commands.jobs(), name=self._name)
        found = [job for job in jobs if job.comment == comment]
        return min(found, key=lambda job: job.number, default=None)

    async def _cancel(self, keeper: Watched) -> None:
        if keeper.job is not None:
            try:
                # A number alone may be another job's by now.
                jobs = read_jobs(await self._commands.jobs(), name=self._name)
                if any(
                    (job.number, job.comment) == (keeper.job, keeper.file.comment) for job in jobs
                ):
                    await self._commands.cancel(keeper.job)
            except SlurmRefused as error:  # it has ended by itself
                _log.debug("job not cancelled", job=keeper.job, error=str(error))
            except (SlurmAway, OSError, ValueError) as error:
                _log.warning("job not cancelled", job=keeper.job, error=str(error))
        self.hurry(_HURRY)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self._keepers = [
                keeper for keeper in self._keepers if keeper.alive and not keeper.released
            ]
            if self._keepers:
                await self._look()
            pause = self._settings.poll_interval
            if time.monotonic() < self._quick_until:
                pause = min(_QUICK, pause)
            if self._keepers:
                if pause > _QUICK:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._wake.wait()
                else:
                    await asyncio.sleep(pause)
            else:
                await self._wake.wait()

    async def _look(self) -> None:
        """Ask once, tell every keeper. Never raises: the next look is another chance."""
        try:
            jobs = read_jobs(await self._commands.jobs(), name=self._name)
        except (SlurmAway, ValueError, OSError, RuntimeError) as error:
            if self._away_since is None:
                self._away_since = time.monotonic()
                _log.warning("Slurm does not answer; kernels go on", error=str(error))
            return
        if self._away_since is not None:
            _log.info("Slurm answers again", seconds=round(time.monotonic() - self._away_since, 1))
            self._away_since = None
        by_number = {job.number: job for job in jobs}
        by_comment = {job.comment: job for job in reversed(jobs)}
        for keeper in list(self._keepers):
            number = keeper.job
            job = by_comment.get(keeper.file.comment) if number is None else by_number.get(number)
            if job is not None and job.comment != keeper.file.comment:
                job = None  # a controller that lost its last seconds gave the number out again
            try:
                await self._tell(keeper, job)
            except OSError as error:
                _log.warning("job not followed", job=number, error=str(error))

    async def _tell(self, keeper: Watched, job: Job | None) -> None:
        if job is None:
            return await self._missing(keeper)
        keeper.missing_since = None
        if keeper.job is None:
            keeper.job = job.number
            keeper.file = JobFile(
                mark=keeper.file.mark,
                comment=keeper.file.comment,
                output=keeper.file.output,
                job=job.number,
            )
            await asyncio.to_thread(keeper.file.write, keeper.directory)
            _log.info("job found by its comment", job=job.number)
            if keeper.cancelled:
                self.cancel(keeper)
        output = await asyncio.to_thread(keeper.output) if job.ended else ""
        state = describe(job, dialled_back=keeper.dialled_back, output=output)
        if state.stage is Stage.ENDED:
            return await self._ended(keeper, state, job, output)
        self._mind_time(keeper, state)
        keeper.see(state, job=str(job.number), node=job.node or None)
        return None

    async def _missing(self, keeper: Watched) -> None:
        """Slurm answers and does not know it."""
        now = time.monotonic()
        keeper.missing_since = keeper.missing_since or now
        patience = 0.0 if keeper.cancelled else _MISSING
        if now - keeper.missing_since < patience:
            self.hurry(_QUICK * 2)
            return
        lost = "Slurm does not know its job (any more)"
        if keeper.job is None:
            lost = "Slurm never took its job: its launcher was ended before"
        # Without a claim nothing of it ever ran, and nothing will: its token goes with it.
        cause = Cause.UNKNOWN if keeper.claimed else Cause.LOST
        ending = Ending(cause=Cause.CANCELLED if keeper.cancelled else cause, text=lost)
        await self._ended(keeper, JobState(stage=Stage.ENDED, text=lost, ending=ending), None, "")

    async def _ended(self, keeper: Watched, state: JobState, job: Job | None, output: str) -> None:
        if await keeper_answers(keeper.directory):
            # Of two runs of one job one ended; or the controller lost its memory.
            keeper.see(JobState(stage=Stage.RUNNING, text="it runs; Slurm does not know of it"))
            _log.warning("Slurm calls a job ended whose keeper answers", job=keeper.job)
            return
        if keeper.cancelled and state.ending is not None and state.ending.cause is Cause.CANCELLED:
            text = keeper.cancelled
            ending = Ending(cause=Cause.CANCELLED, text=text)
            state = JobState(stage=Stage.ENDED, text=text, ending=ending)
        if output and keeper.directory.is_dir():
            with contextlib.suppress(OSError):  # it is only a help
                await asyncio.to_thread(write_private, keeper.directory / LOG_FILE, output.encode())
        where = {} if job is None or not job.node else {"node": job.node}
        keeper.see(state, **where)

    def _mind_time(self, keeper: Watched, state: JobState) -> None:
        """A job that never starts, or that never has a keeper, is given up."""
        now, settings = time.monotonic(), self._settings
        waiting = state.stage is Stage.PENDING
        starting = state.stage is Stage.STARTING
        keeper.pending_since = (keeper.pending_since or now) if waiting else None
        keeper.running_since = (keeper.running_since or now) if starting else None
        if keeper.cancelled:
            return
        if waiting and settings.pending_timeout is not None:
            if now - (keeper.pending_since or now) > settings.pending_timeout:
                limit = settings.pending_timeout
                self.cancel(keeper, f"it did not get its turn within {limit:g} s: {state.text}")
        elif starting and now - (keeper.running_since or now) > settings.start_timeout:
            limit = settings.start_timeout
            self.cancel(
                keeper, f"no keeper came of its job within {limit:g} s; {_hint(keeper.output())}"
            )


def _hint(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    if lines:
        return f"it said: {lines[-1][:300]}"
    return "can that machine reach the launcher?"
