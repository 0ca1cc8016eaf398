"""The Slurm engine: a keeper and its kernel are a batch job.

It knows sbatch, squeue and scancel through ``commands``, and the launcher's directories; it must
not know HTTP, fences or owners. What Slurm says is turned into words by ``states``; watching is
``watch``'s.

Invariants:

- *Findable.* ``job.json`` with the comment is on disk before sbatch is run, and the job carries
  the comment from its first moment: a start whose launcher was killed at any point is found by
  number or by comment, or is proven never to have been taken.
- *Silence is not evidence.* A controller that does not answer changes nothing.
- *The job is not the incarnation.* A job that Slurm calls ended is believed only when the keeper
  does not answer (``remote.presence``).
"""

from __future__ import annotations

import asyncio
import pwd
from pathlib import Path
from signal import Signals

import structlog

from holdfast_launcher.engines.contract import (
    Engine,
    JobState,
    Keeper,
    LaunchFailed,
    Stage,
    Submission,
)
from holdfast_launcher.engines.slurm.commands import Commands, SlurmRefused
from holdfast_launcher.engines.slurm.job_files import JobFile, read_job_file
from holdfast_launcher.engines.slurm.script import (
    job_comment,
    job_name,
    job_script,
    output_path,
    sbatch_arguments,
)
from holdfast_launcher.engines.slurm.settings import SlurmSettings
from holdfast_launcher.engines.slurm.watch import Watch, Watched
from holdfast_launcher.keeper.config import KeeperConfig

_log = structlog.get_logger(__name__)


class SlurmEngine(Engine):
    """One per launcher."""

    name = "slurm"
    queues = True
    resources = frozenset(
        ["cpus", "memory", "gpus", "time", "partition", "account", "qos", "labels"]
    )

    def __init__(self, *, settings: SlurmSettings, commands: Commands, launcher_id: str) -> None:
        self._settings = settings
        self._commands = commands
        self._launcher_id = launcher_id
        self.separates_users = settings.run_as_user
        self._watch = Watch(settings=settings, commands=commands, name=job_name(launcher_id))

    def __repr__(self) -> str:
        return f"SlurmEngine({self._watch!r})"

    async def start(self) -> None:
        self._watch.start()

    async def close(self) -> None:
        await self._watch.close()

    async def launch(self, config: KeeperConfig) -> Keeper:
        raise LaunchFailed("a kernel on Slurm ends with its keeper")

    async def submit(self, submission: Submission) -> Keeper:
        directory = submission.directory
        present = read_job_file(directory)
        if present is not None and present.mark == submission.mark:
            found = await self._find_job(present, directory)
            if found is not None:
                return found
        user = self._user(submission.config.user)
        comment = job_comment(self._launcher_id, submission)
        arguments = sbatch_arguments(
            submission, self._settings, launcher_id=self._launcher_id, user=user
        )
        script = job_script(submission, self._settings)
        file = JobFile(
            mark=submission.mark, comment=comment, output=output_path(submission, self._settings)
        )
        await asyncio.to_thread(file.write, directory)
        try:
            number = await self._commands.submit(arguments, script)
        except SlurmRefused as error:
            raise LaunchFailed(f"Slurm refused the job: {error}") from error
        file = JobFile(mark=file.mark, comment=comment, output=file.output, job=number)
        await asyncio.to_thread(file.write, directory)
        return self._watched(file, directory)

    async def find(self, directory: Path) -> Keeper | None:
        file = read_job_file(directory)
        if file is None:
            return None
        # Without a number its launcher was killed around its sbatch: the watch finds out.
        return self._watched(file, directory)

    async def end_kernel(self, directory: Path, *, mark: str, timeout: float) -> bool:
        file = read_job_file(directory)
        if file is None:
            return True
        keeper = self._watched(file, directory)
        keeper.kill()
        gone = await keeper.wait_gone(timeout=timeout)
        keeper.release()
        if gone and file.output is not None:
            await asyncio.to_thread(Path(file.output).unlink, missing_ok=True)
        return gone

    async def _find_job(self, file: JobFile, directory: Path) -> Keeper | None:
        """The job of an earlier submit of the same start. Raises SlurmAway."""
        if file.job is None:
            job = await self._watch.look_up(file.comment)
            if job is None:
                return None
            file = JobFile(mark=file.mark, comment=file.comment, output=file.output, job=job.number)
            await asyncio.to_thread(file.write, directory)
        return self._watched(file, directory)

    def _watched(self, file: JobFile, directory: Path) -> Watched:
        text = "its start is being looked for in Slurm's queue"
        stage = Stage.SUBMITTED
        if file.job is not None:
            text = f"Slurm has taken it as job {file.job}"
        keeper = Watched(
            file=file,
            directory=directory,
            state=JobState(stage=stage, text=text),
            watch=self._watch,
            send_signal=lambda number: self._signal(keeper, number),
        )
        self._watch.add(keeper)
        return keeper

    async def _signal(self, keeper: Watched, number: Signals) -> None:
        if keeper.job is None:
            raise LaunchFailed("its job is not known yet")
        try:
            await self._commands.signal(keeper.job, number.name.removeprefix("SIG"))
        except SlurmRefused as error:
            raise LaunchFailed(str(error)) from error

    def _user(self, user: str) -> str | None:
        """Whose job it is to be; None: our own. Raises LaunchFailed."""
        if not self._settings.run_as_user:
            return None
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise LaunchFailed(
                f"{user!r} has no account on the launcher's machine, so no job can be theirs"
            ) from None
        if entry.pw_uid == 0 and not self._settings.allow_root:
            raise LaunchFailed("no kernel runs as root here (engines.slurm.allow_root)")
        return str(entry.pw_uid)
