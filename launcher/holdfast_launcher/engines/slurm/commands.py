"""Slurm's commands, each a subprocess with explicit arguments and a deadline; never a shell.

It knows how to run them and read what they say; it must not know kernels. They get an environment
of our making: sbatch hands its own to the job, and the launcher's is nobody's business there.
Rejected: ``--export=NONE`` (Slurm then fetches the user's login environment, a second of each
start), slurmrestd (few sites run it), PySlurm (bound to one version of Slurm).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast_launcher.engines.programs import run_program
from holdfast_launcher.engines.slurm.settings import SlurmSettings
from holdfast_launcher.reaper import Reaper

_PATH = "/usr/local/bin:/usr/bin:/bin"
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
#: Slurm's words when it was not Slurm that answered: nothing is known then.
_AWAY = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Connection timed out",
    "Zero Bytes were transmitted",
    "Unexpected message received",
    "Transport endpoint",
    "munge",
    "Munge",
    "Protocol authentication error",
    "Slurm backup controller in standby mode",
    "Communication connection failure",
    "slurm_persist_conn_open",
)


class SlurmRefused(Exception):
    """Slurm's answer is no; the message is its own."""


class SlurmAway(OSError):
    """Slurm does not answer: whether a command had an effect is not known."""


class Commands:
    """sbatch, squeue and scancel. ``environment``: the launcher's, of which little is passed."""

    def __init__(
        self,
        settings: SlurmSettings,
        *,
        environment: Mapping[str, str],
        reaper: Reaper | None = None,
    ) -> None:
        self._reaper = reaper
        self._timeout = settings.command_timeout
        self._directory = settings.bin_dir
        path = environment.get("PATH", "")
        self._environment = {
            "PATH": f"{path}:{_PATH}" if path else _PATH,
            **{name: environment[name] for name in _KEPT if name in environment},
        }
        if settings.conf is not None:
            self._environment["SLURM_CONF"] = settings.conf

    def __repr__(self) -> str:
        return f"Commands({self._directory or 'on PATH'})"

    async def submit(self, arguments: Sequence[str], script: str) -> int:
        """The number of the new job. Raises SlurmRefused, SlurmAway."""
        answer = await self._run("sbatch", *arguments, stdin=script)
        number = answer.strip().partition(";")[0]
        if not number.isdigit():
            raise SlurmAway(f"sbatch answered {answer[:200]!r}")
        return int(number)

    async def jobs(self) -> dict[str, Any]:
        """Everything that the controller remembers. Raises SlurmAway."""
        try:
            answer = await self._run("squeue", "--json")
            document = json.loads(answer)
        except (SlurmRefused, ValueError) as error:
            raise SlurmAway(f"squeue: {error}") from error
        if not isinstance(document, dict):
            raise SlurmAway("squeue answered no object")
        return document

    async def cancel(self, number: int) -> None:
        """End a job by force: what waits is dropped, what runs is killed, all of it, at once.

        Raises SlurmRefused, SlurmAway.
        """
        # The first does nothing to a job that waits; the second alone gives a running one its
        # KillWait seconds of grace, after which nobody is asked any more.
        with contextlib.suppress(SlurmRefused):
            await self._run("scancel", "--quiet", "--signal=KILL", "--full", str(number))
        await self._run("scancel", "--quiet", str(number))

    async def signal(self, number: int, name: str) -> None:
        """Signal the job's keeper alone. Raises SlurmRefused, SlurmAway."""
        await self._run("scancel", "--quiet", f"--signal={name}", "--batch", str(number))

    async def _run(self, command: str, *arguments: str, stdin: str = "") -> str:
        program = command if self._directory is None else f"{self._directory}/{command}"
        try:
            said = await run_program(
                [program, *arguments],
                environment=self._environment,
                stdin=stdin.encode(),
                timeout=self._timeout,
                reaper=self._reaper,
            )
        except FileNotFoundError as error:
            raise SlurmRefused(f"{program} is not installed on the launcher's machine") from error
        except TimeoutError as error:
            raise SlurmAway(f"{command} took longer than {self._timeout:g} s") from error
        if said.ok:
            return said.out.decode(errors="replace")
        text = said.err.decode(errors="replace").strip()
        if said.status is None or any(words in text for words in _AWAY):
            raise SlurmAway(f"{command}: {_words(text)}")
        raise SlurmRefused(_words(text) or f"{command} ended with status {said.status}")


def _words(said: str) -> str:
    """The last line, which has the reason, without the command's name before it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    for prefix in ("sbatch: error: ", "squeue: error: ", "scancel: error: "):
        text = text.removeprefix(prefix)
    return text.removeprefix("Batch job submission failed: ")
