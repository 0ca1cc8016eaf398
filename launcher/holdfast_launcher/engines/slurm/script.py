"""From a submission to sbatch's arguments and the job's script: pure.

Invariant: nothing secret is an argument, a name or a comment. The script, which Slurm gives to
its owner and its administrators only, holds the start's one-time token: it is worth one claim,
which the job itself makes in its first second.
"""

from __future__ import annotations

import math
import shlex

from holdfast_launcher.engines.contract import LaunchFailed, Submission
from holdfast_launcher.engines.remote.reporting import Order
from holdfast_launcher.engines.resources import Resources, parse_memory, parse_time
from holdfast_launcher.engines.slurm.settings import SlurmSettings

_END = "END_OF_HOLDFAST_ORDER"


def job_name(launcher_id: str) -> str:
    """What all jobs of one launcher are called."""
    return f"holdfast-{launcher_id}"


def job_comment(launcher_id: str, submission: Submission) -> str:
    """What exactly this start's job is found by. The mark stands for the start's nonce."""
    return f"holdfast:{launcher_id}:{submission.config.kernel_id}:{submission.mark}"


def settle(resources: Resources, settings: SlurmSettings) -> Resources:
    """What was asked for, with the engine's own settings where nothing was."""
    return Resources(
        cpus=resources.cpus or settings.cpus,
        memory=resources.memory or (parse_memory(settings.memory) if settings.memory else None),
        gpus=resources.gpus,
        time=_whole_minutes(resources.time or (parse_time(settings.time) if settings.time else 0)),
        partition=resources.partition or settings.partition,
        account=resources.account or settings.account,
        qos=resources.qos or settings.qos,
        labels=resources.labels,
    )


def sbatch_arguments(
    submission: Submission, settings: SlurmSettings, *, launcher_id: str, user: str | None
) -> list[str]:
    """Without the command. ``user``: whose job it is to be; None: the launcher's own."""
    resources = settle(submission.resources, settings)
    arguments = [
        "--parsable",
        f"--job-name={job_name(launcher_id)}",
        f"--comment={job_comment(launcher_id, submission)}",
        # A kernel that began again by itself would be an empty one under an open notebook.
        "--no-requeue",
        "--nodes=1",
        "--ntasks=1",
        "--chdir=/",
        "--open-mode=append",
        f"--output={output_path(submission, settings) or '/dev/null'}",
        f"--signal=B:USR1@{settings.notice}",
    ]
    options = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "cpus-per-task": resources.cpus,
        "mem": None if resources.memory is None else f"{math.ceil(resources.memory / 2**20)}M",
        "gres": None if not resources.gpus else f"gpu:{resources.gpus}",
        "time": None if resources.time is None else str(resources.time // 60),
        "constraint": "&".join(_features(resources)) or None,
        "uid": user,
    }
    arguments += [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [*arguments, *settings.extra_arguments]


def output_path(submission: Submission, settings: SlurmSettings) -> str | None:
    """Where the job's own words go; None: nowhere."""
    if settings.output_dir is None:
        return None
    return f"{settings.output_dir}/holdfast-{submission.config.kernel_id}-{submission.mark}.out"


def job_script(submission: Submission, settings: SlurmSettings) -> str:
    """What sbatch reads on its standard input. Raises LaunchFailed without a way back."""
    back = submission.dial_back
    if back is None or not back.url:
        raise LaunchFailed("a job needs to know where its launcher is")
    order = Order(
        kernel_id=submission.config.kernel_id,
        url=back.url,
        fingerprint=back.fingerprint,
        token=back.token,
        directory=settings.node_dir,
        time_limit=settle(submission.resources, settings).time,
        notice=settings.notice,
        engine="Slurm",
    )
    python = shlex.quote(settings.python)
    missing = f"holdfast: there is no Python at {settings.python} on"
    return (
        "#!/bin/sh\n"
        f"if ! [ -x {python} ]; then\n"
        f'  echo {shlex.quote(missing)} "$(hostname)" >&2\n'
        "  exit 127\n"
        "fi\n"
        f"exec {python} -P -m holdfast_launcher.engines.remote <<'{_END}'\n"
        f"{order.to_json()}\n"
        f"{_END}\n"
    )


def _features(resources: Resources) -> list[str]:
    """A label is a feature of Slurm's: ``disk: ssd`` is ``disk_ssd``, ``fast: yes`` is ``fast``."""
    features = []
    for key, value in resources.labels.items():
        feature = key if value.lower() in ("", "true", "yes") else f"{key}_{value}"
        if not feature.replace("_", "").replace("-", "").replace(".", "").isalnum():
            raise LaunchFailed(f"label {key!r} cannot be a feature of Slurm's")
        features.append(feature)
    return features


def _whole_minutes(seconds: int) -> int | None:
    """Slurm counts time limits in minutes."""
    return math.ceil(seconds / 60) * 60 if seconds else None
