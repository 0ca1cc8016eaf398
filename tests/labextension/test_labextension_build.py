"""The JupyterLab extension's logic under Node, and that the built files are those of the source."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "client_shim" / "labextension"
BUILT = ROOT / "client_shim" / "holdfast_client_shim" / "labextension"


def missing(what: str) -> None:
    """Skip, or fail in CI. Not by `need_command`: Debian 12's own Node is too old."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def npm(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [shutil.which("npm") or "npm", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"npm {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def link_or_copy(source: str, target: str) -> str:
    """150 MB of packages, in no time where both are on one file system."""
    with suppress(OSError):
        os.link(source, target)
        return target
    return shutil.copy2(source, target)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source in another place, with its packages and without anything built."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("`node` and `npm` are missing (Node 20 or later)")
    folder = tmp_path_factory.mktemp("elsewhere") / "labextension"
    skipped = shutil.ignore_patterns("node_modules", "lib", "out-test")
    shutil.copytree(SOURCE, folder, ignore=skipped)
    packages = SOURCE / "node_modules"
    if (packages / ".holdfast").exists():
        shutil.copytree(
            packages, folder / "node_modules", symlinks=True, copy_function=link_or_copy
        )
    else:
        npm(folder, "ci", "--silent")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_the_logic_holds(copy: Path) -> None:
    said = npm(copy, "run", "--silent", "test")
    passed = re.search(r"^# pass (\d+)$", said, re.MULTILINE)
    assert passed is not None, said
    assert int(passed[1]) >= 40, said


def test_the_built_files_are_those_of_the_source(copy: Path) -> None:
    npm(copy, "run", "--silent", "build")
    again = contents(copy.parent / "holdfast_client_shim" / "labextension")
    committed = contents(BUILT)
    assert sorted(again) == sorted(committed), "make labextension, then commit what changed"
    for name, data in committed.items():
        assert again[name] == data, f"{name}: make labextension, then commit what changed"
