"""What Slurm says of a job, as a user reads it: pure. Source: squeue(1), "JOB STATE CODES" and
"JOB REASON CODES"; exit codes are wait(2) statuses."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast_launcher.engines.contract import Cause, Ending, JobState, Stage

#: States after which nothing follows.
_ENDED = frozenset(
    [
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    ]
)
_WAITS = {
    "None": "Slurm looks for a place for it",
    "Resources": "it waits until enough of the cluster is free",
    "Priority": "other jobs come first",
    "Dependency": "it waits for another job",
    "BeginTime": "its time to begin has not come",
    "ReqNodeNotAvail": "the machines that it needs are down or reserved",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "the machines that it needs are down or reserved"
    ),
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs now",
    "PartitionTimeLimit": "it asks for more time than its partition gives",
    "PartitionNodeLimit": "it asks for more than its partition gives",
    "JobHeldUser": "it is held",
    "JobHeldAdmin": "an administrator holds it",
    "BadConstraints": "no machine can ever give what it asks for",
}
#: What slurmd's step manager writes when it ends a job for its memory.
_MEMORY_WORDS = ("Exceeded job memory limit", "exceeded memory limit", "oom-kill", "oom_kill")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What of ``squeue --json`` matters. ``ahead``: jobs that wait before it in its partition."""

    number: int
    name: str
    comment: str
    state: str
    reason: str
    node: str
    exit_status: int
    partition: str
    ahead: int = 0

    @property
    def ended(self) -> bool:
        return self.state in _ENDED


def read_jobs(document: Mapping[str, Any], *, name: str) -> list[Job]:
    """The jobs called ``name``. Raises ValueError for what is no answer of squeue's."""
    rows = document.get("jobs")
    if not isinstance(rows, list):
        raise ValueError("squeue answered something else than jobs")  # noqa: TRY004 - as json's
    waiting = [row for row in rows if _state(row) == "PENDING"]
    return [_read(row, waiting) for row in rows if row.get("name") == name]


def describe(job: Job, *, dialled_back: bool, output: str = "") -> JobState:
    """``dialled_back``: its keeper has said where it is; ``output``: the job's own last words."""
    if job.ended:
        ending = _ending(job, dialled_back=dialled_back, output=output)
        return JobState(stage=Stage.ENDED, text=ending.text, ending=ending)
    if job.state == "PENDING":
        return JobState(stage=Stage.PENDING, text=_waits(job))
    where = f" on {job.node}" if job.node else ""
    if job.state == "CONFIGURING":
        return JobState(stage=Stage.STARTING, text=f"Slurm prepares its machine{where}")
    if job.state == "SUSPENDED":
        return JobState(stage=Stage.RUNNING, text=f"Slurm has suspended it{where}")
    if dialled_back:
        return JobState(stage=Stage.RUNNING, text=f"it runs{where}")
    return JobState(stage=Stage.STARTING, text=f"its job {job.number} starts{where}")


def _waits(job: Job) -> str:
    reason = job.reason.partition(",")[0].strip() or "None"
    text = _WAITS.get(job.reason) or _WAITS.get(reason) or "it waits for its turn"
    if "Limit" in reason and reason not in _WAITS:
        text = "a limit of its user or account is reached"
    line = ""
    if job.ahead:
        line = f", {job.ahead} job{'' if job.ahead == 1 else 's'} before it"
    said = "" if reason == "None" else f" (Slurm: {reason})"
    partition = f" in partition {job.partition}" if job.partition else ""
    return f"job {job.number} is in Slurm's queue{partition}{line}: {text}{said}"


def _ending(job: Job, *, dialled_back: bool, output: str) -> Ending:
    exit_code, number = _status(job.exit_status)
    last = _last_line(output)
    where = f" on {job.node}" if job.node else ""
    if job.state == "OUT_OF_MEMORY" or any(word in output for word in _MEMORY_WORDS):
        text = f"Slurm ended it{where}: it took more memory than its job has"
        return Ending(cause=Cause.OUT_OF_MEMORY, text=text, signal=number)
    if job.state in ("TIMEOUT", "DEADLINE"):
        return Ending(cause=Cause.TIME_LIMIT, text=f"Slurm ended it{where}: its time limit is over")
    if job.state == "PREEMPTED":
        text = f"Slurm ended it{where}: it was pre-empted, its place was needed for other work"
        return Ending(cause=Cause.PREEMPTED, text=text)
    if job.state in ("NODE_FAIL", "BOOT_FAIL"):
        return Ending(cause=Cause.NODE_LOST, text=f"its machine{where} was lost, says Slurm")
    if job.state == "CANCELLED":
        text = f"its job {job.number} was cancelled"
        return Ending(cause=Cause.CANCELLED, text=text)
    if number is not None and dialled_back:
        text = f"its job{where} was killed by {_name(number)}"
        return Ending(cause=Cause.SIGNAL, text=text, signal=number)
    text = f"its job {job.number} ended{where} with exit code {exit_code}"
    if number is not None:
        text = f"its job {job.number} was killed{where} by {_name(number)}"
    if not dialled_back:
        text += ", before its keeper was there"
        text += f"; it said: {last}" if last else ""
        return Ending(cause=Cause.NEVER_STARTED, text=text, exit_code=exit_code, signal=number)
    return Ending(cause=Cause.EXIT, text=text, exit_code=exit_code)


def _read(row: Mapping[str, Any], waiting: Iterable[Mapping[str, Any]]) -> Job:
    state, partition = _state(row), str(row.get("partition") or "")
    number, priority = int(row["job_id"]), int(row.get("priority") or 0)
    ahead = 0
    if state == "PENDING":
        ahead = sum(
            1
            for other in waiting
            if other.get("partition") == partition
            and (-int(other.get("priority") or 0), int(other["job_id"])) < (-priority, number)
        )
    return Job(
        number=number,
        name=str(row.get("name") or ""),
        comment=str(row.get("comment") or ""),
        state=state,
        reason=str(row.get("state_description") or row.get("state_reason") or "None"),
        node=str(row.get("nodes") or ""),
        exit_status=_exit_status(row.get("exit_code")),
        partition=partition,
        ahead=ahead,
    )


def _state(row: Mapping[str, Any]) -> str:
    """One word until Slurm 23.02, a list of words since."""
    value = row.get("job_state")
    if isinstance(value, list):
        return str(value[0]) if len(value) == 1 else "COMPLETING" if "COMPLETING" in value else ""
    return str(value or "")


def _exit_status(value: object) -> int:
    """A wait(2) status until Slurm 23.02, an object since."""
    if isinstance(value, int):
        return value
    if isinstance(value, dict):
        code = value.get("return_code")
        number = code.get("number") if isinstance(code, dict) else code
        signalled = value.get("signal")
        sent = signalled.get("id") if isinstance(signalled, dict) else None
        sent = sent.get("number") if isinstance(sent, dict) else sent
        if isinstance(sent, int) and sent:
            return sent
        return int(number) << 8 if isinstance(number, int) else 0
    return 0


def _status(status: int) -> tuple[int | None, int | None]:
    """(exit code, signal)."""
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None, None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
