"""What Slurm is told and what it says, without Slurm: arguments, script, states, signals."""

from __future__ import annotations

import subprocess
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

from holdfast_launcher.engines.contract import Cause, DialBack, JobState, Stage, Submission
from holdfast_launcher.engines.remote.terms import Terms
from holdfast_launcher.engines.resources import Resources
from holdfast_launcher.engines.slurm.script import job_script, sbatch_arguments
from holdfast_launcher.engines.slurm.settings import SlurmSettings, read_settings
from holdfast_launcher.engines.slurm.states import describe, read_jobs
from holdfast_launcher.errors import ConfigError
from holdfast_launcher.keeper.config import KeeperConfig

SECRETS = ("one-time-token", "the-credential", "the-nonce", "user's secret")


def submission(**resources: Any) -> Submission:
    config = KeeperConfig(
        kernel_id="k1", nonce="the-nonce", spec="python3", user="ada", state_dir="/x",
        credential="the-credential", env={"KERNEL_TOKEN": "user's secret"},
    )  # fmt: skip
    back = DialBack(url="https://login:9000", fingerprint="ab", token="one-time-token")
    return Submission(
        config=config, directory=Path("/x"), mark="m1", resources=Resources(**resources),
        dial_back=back,
    )  # fmt: skip


def test_no_secret_is_an_argument_and_the_script_has_the_token_only() -> None:
    settings = SlurmSettings(partition="main", memory="1G", output_dir="/shared")
    arguments = sbatch_arguments(
        submission(time=90, gpus=1, labels={"disk": "ssd"}), settings, launcher_id="l1", user="1000"
    )
    assert not [word for word in SECRETS if word in " ".join(arguments)]
    assert "--comment=holdfast:l1:k1:m1" in arguments
    assert {
        "--mem=1024M", "--time=2", "--gres=gpu:1", "--constraint=disk_ssd", "--uid=1000",
        "--partition=main", "--no-requeue",
    } <= set(arguments)  # fmt: skip
    script = job_script(submission(), settings)
    assert [word for word in SECRETS if word in script] == ["one-time-token"]


def test_a_missing_python_says_so(tmp_path: Path) -> None:
    script = job_script(submission(), SlurmSettings(python="/no such/python"))
    done = subprocess.run(["/bin/sh"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "there is no Python at /no such/python" in done.stderr


def row(**fields: Any) -> dict[str, Any]:
    return {
        "job_id": 7, "name": "holdfast-l1", "comment": "c", "job_state": "RUNNING",
        "state_reason": "None", "nodes": "n1", "exit_code": 0, "partition": "main",
        "priority": 10, **fields,
    }  # fmt: skip


def state(
    *others: dict[str, Any], dialled: bool = True, output: str = "", **fields: Any
) -> JobState:
    (job,) = read_jobs({"jobs": [row(**fields), *others]}, name="holdfast-l1")
    return describe(job, dialled_back=dialled, output=output)


@pytest.mark.parametrize(
    ("fields", "cause", "words"),
    [
        ({"job_state": "TIMEOUT"}, Cause.TIME_LIMIT, "time limit"),
        ({"job_state": ["PREEMPTED"]}, Cause.PREEMPTED, "pre-empted"),
        ({"job_state": "OUT_OF_MEMORY"}, Cause.OUT_OF_MEMORY, "more memory"),
        ({"job_state": "NODE_FAIL"}, Cause.NODE_LOST, "machine on n1 was lost"),
        ({"job_state": "CANCELLED"}, Cause.CANCELLED, "cancelled"),
        ({"job_state": "FAILED", "exit_code": 3 << 8}, Cause.EXIT, "exit code 3"),
        ({"job_state": "FAILED", "exit_code": 9}, Cause.SIGNAL, "SIGKILL"),
        (
            {"job_state": "FAILED", "exit_code": 9, "output": "error: Exceeded job memory limit"},
            Cause.OUT_OF_MEMORY,
            "more memory",
        ),
        (
            {"job_state": "FAILED", "exit_code": 127 << 8, "dialled": False, "output": "no Python"},
            Cause.NEVER_STARTED,
            "before its keeper was there; it said: no Python",
        ),
    ],
)
def test_why_a_job_ended(fields: dict[str, Any], cause: Cause, words: str) -> None:
    found = state(**fields)
    assert (found.stage, found.ending and found.ending.cause) == (Stage.ENDED, cause)
    assert words in found.text


def test_a_job_that_waits_says_for_what_and_behind_whom() -> None:
    before = row(job_id=3, name="somebody's", job_state="PENDING", nodes="")
    found = state(before, job_state="PENDING", state_reason="Resources", nodes="")
    assert found.stage is Stage.PENDING
    assert "in partition main, 1 job before it" in found.text
    assert "(Slurm: Resources)" in found.text


def test_a_job_that_is_ending_has_not_ended() -> None:
    assert state(job_state="COMPLETING").stage is Stage.RUNNING


def test_signals_by_how_long_the_job_has_run() -> None:
    def foresee(number: Signals, *, at: float, limit: int | None = 3600) -> str:
        terms = Terms(
            engine="Slurm", begun=0.0, time_limit=limit, notice=60, clock=lambda: at,
            wall=lambda: 0.0,
        )  # fmt: skip
        found = terms.foresee(number)
        assert found is not None
        assert found.final is (number is Signals.SIGTERM)
        return found.reason

    assert "time limit of 1 hour" in foresee(Signals.SIGUSR1, at=3540)
    assert "pre-empted" in foresee(Signals.SIGUSR1, at=600)
    assert "time limit of 1 hour" in foresee(Signals.SIGTERM, at=3600)
    assert "before its time" in foresee(Signals.SIGTERM, at=600)
    assert "before its time" in foresee(Signals.SIGTERM, at=600, limit=None)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"partion": "x"}, "partion"),
        ({"memory": "lots"}, "engines.slurm.memory"),
        ({"python": "python3"}, "absolute path"),
    ],
)
def test_settings_that_are_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_settings(table)


def test_every_setting_is_on_the_page() -> None:
    page = (Path(__file__).parents[4] / "docs" / "howto" / "slurm.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    missing = [key for key in SlurmSettings.__struct_fields__ if f"`{key}`" not in " ".join(rows)]
    assert not missing
