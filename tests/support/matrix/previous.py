"""The version before this one: an older commit's packages in a folder of their own.

It is the state before the last change to what keepers and launchers run, so that it differs from
the present one whatever was committed since; $HOLDFAST_PREVIOUS names another commit or tag.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from support.cluster import clean_env
from support.system import need_command

_ROOT = Path(__file__).parents[3]
_PACKAGES = ("launcher", "protocol")


def previous_commit() -> str:
    """Its full id. Skips, by name, where the history is not there."""
    named = os.environ.get("HOLDFAST_PREVIOUS")
    if named:
        return _git("rev-parse", "--verify", f"{named}^{{commit}}")
    if not _git("rev-parse", "--git-dir", check=False):
        pytest.skip("no git repository here: no older version to run")
    last = _git("rev-list", "--first-parent", "-1", "HEAD", "--", *_PACKAGES)
    before = _git("rev-parse", "--verify", "--quiet", f"{last}~1^{{commit}}", check=False)
    if not before:
        pytest.skip("the clone is shallow: it has no commit before the last change to keepers")
    return before


def unpack(commit: str, folder: Path) -> Path:
    """The commit's launcher and protocol in ``folder``, and proof that Python takes those."""
    archive = subprocess.run(
        [_binary(), "-C", str(_ROOT), "archive", commit, *_PACKAGES],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    code = "import holdfast_launcher as a, holdfast_protocol as b; print(a.__file__, b.__file__)"
    path = ":".join(str(folder / name) for name in _PACKAGES)
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_env(PYTHONPATH=path),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert all(Path(file).is_relative_to(folder) for file in found), found
    return folder


def _binary() -> str:
    return need_command("git", package="git")


def _git(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        [_binary(), "-C", str(_ROOT), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip() if done.returncode == 0 else ""
