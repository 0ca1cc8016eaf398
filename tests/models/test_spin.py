"""The Promela models beside the protocol: spin finds no error in them, and each planted bug.

A model that cannot fail proves nothing, so every claim has bugs that only it (or another named
one) can find. The counterexample of a failure is kept as an artefact.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.system import need_command

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

PROTOCOL = Path(__file__).parents[2] / "protocol" / "holdfast_protocol"
MODELS = {"ownership": PROTOCOL / "ownership.pml", "stream": PROTOCOL / "stream" / "stream.pml"}

#: Planted bug: the claim that it breaks, as it stands in the assertion that fails.
EFFECT, AGREEMENT = "token>=", "record=="
ONCE, CONTIGUOUS, COMPLETE = "n==(applied+1)", "b==position", "applied_of_id=="
BUGS = [
    ("ownership", "NO_LAUNCHER_FENCE", EFFECT),
    ("ownership", "NO_KEEPER_FENCE", EFFECT),
    ("ownership", "BLIND_WRITE", AGREEMENT),
    ("ownership", "TOMBSTONE_FIRST", AGREEMENT),
    ("ownership", "NO_RESUME", AGREEMENT),
    ("stream", "NO_DEDUPLICATION", ONCE),
    ("stream", "NO_DETACH", COMPLETE),
    ("stream", "SILENT_TRIM", CONTIGUOUS),
    ("stream", "RESUME_FROM_WRITTEN", CONTIGUOUS),
    ("stream", "STALE_BYTES", CONTIGUOUS),
    ("stream", "ATTEMPTS_UNCHECKED", COMPLETE),
]


def check(model: str, directory: Path, *defines: str) -> str:
    """What the checker says of every reachable state. Needs spin and gcc."""
    source = shutil.copy(MODELS[model], directory)
    flags = [f"-D{define}" for define in defines]
    run(["spin", *flags, "-a", Path(source).name], directory)
    # MEMLIM is in MiB; COLLAPSE packs states, so that two cores and little memory are enough.
    options = ["-O2", "-DSAFETY", "-DNOCLAIM", "-DCOLLAPSE", "-DMEMLIM=2000"]
    run(["gcc", *options, "-o", "pan", "pan.c"], directory)
    # -E: a process that waits at the end is no error; Monitor decides what may be left.
    said = run(["./pan", "-m400000", "-E"], directory, may_fail=True)
    assert "max search depth too small" not in said, said
    return said


def run(command: list[str], directory: Path, *, may_fail: bool = False) -> str:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=False, timeout=300
    )
    assert may_fail or done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(autouse=True)
def _tools() -> None:
    need_command("spin", package="spin")
    need_command("gcc", package="gcc")


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("ownership", ()),
        ("ownership", ("PROXIES=3", "CRASHES=1", "PAUSES=1")),
        ("stream", ()),
    ],
)
def test_no_reachable_state_breaks_a_claim(
    model: str, sizes: tuple[str, ...], tmp_path: Path
) -> None:
    said = check(model, tmp_path, *sizes)
    print(f"\n{model} {' '.join(sizes)}: {states(said)} states, no error")
    assert "errors: 0" in said, counterexample(model, said, tmp_path)


@pytest.mark.parametrize(("model", "bug", "claim"), BUGS)
def test_a_planted_bug_is_found(model: str, bug: str, claim: str, tmp_path: Path) -> None:
    said = check(model, tmp_path, bug)
    violated = next((line for line in said.splitlines() if "assertion violated" in line), "")
    assert claim in violated.replace(" ", ""), said


def states(said: str) -> str:
    return next(line.split()[0] for line in said.splitlines() if "states, stored" in line)


def counterexample(model: str, said: str, directory: Path) -> str:
    """The steps to the broken claim, also kept where artefacts go."""
    steps = run(["spin", "-t", "-p", MODELS[model].name], directory, may_fail=True)
    kept = os.environ.get("HOLDFAST_ARTEFACTS")
    if kept:
        Path(kept, f"{model}-counterexample.txt").write_text(steps)
    return f"{said}\n{steps}"
