"""What is committed of the JupyterLab extension fits together and is what gets installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "client_shim" / "labextension"
BUILT = ROOT / "client_shim" / "holdfast_client_shim" / "labextension"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLACE = "share/jupyter/labextensions/holdfast-status"


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_it_has_the_version_of_the_distribution() -> None:
    version = PROJECT["project"]["version"]
    assert read(SOURCE / "package.json")["version"] == version
    assert read(SOURCE / "package-lock.json")["version"] == version
    assert read(BUILT / "package.json")["version"] == version


def test_the_built_files_are_of_this_source_s_package_json() -> None:
    built = read(BUILT / "package.json")
    build = built["jupyterlab"].pop("_build")
    assert built == read(SOURCE / "package.json"), "make labextension"
    assert (BUILT / build["load"]).is_file()
    assert build["extension"] == "./extension"
    # Nothing of an older build lies about.
    assert len(list((BUILT / "static").glob("remoteEntry.*.js"))) == 1


def test_the_lock_names_no_host_and_no_script_is_run() -> None:
    lock = (SOURCE / "package-lock.json").read_text()
    assert "resolved" not in lock
    packages = read(SOURCE / "package-lock.json")["packages"]
    bare = [name for name, package in packages.items() if name != "" and "integrity" not in package]
    assert not bare, bare
    assert "ignore-scripts=true" in (SOURCE / ".npmrc").read_text().splitlines()


def test_the_wheel_has_it_once_and_where_jupyterlab_looks() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["shared-data"][str(BUILT.relative_to(ROOT))] == PLACE
    installed = wheel["shared-data"][str((SOURCE / "install.json").relative_to(ROOT))]
    assert installed == f"{PLACE}/install.json"
    assert str(BUILT.relative_to(ROOT)) in wheel["exclude"]
    assert read(SOURCE / "install.json")["packageName"] == PROJECT["project"]["name"]


def test_it_is_installed_here_as_it_is_built() -> None:
    """Also an editable installation copies it: a build must be followed by an installation."""
    installed = Path(sys.prefix) / PLACE
    for file in BUILT.rglob("*"):
        if file.is_file():
            copy = installed / file.relative_to(BUILT)
            assert copy.exists(), f"{copy} is missing: run make, which installs it"
            assert copy.read_bytes() == file.read_bytes(), f"{copy} is old: run make"


@pytest.mark.long
@pytest.mark.timeout(90)
def test_jupyterlab_calls_it_enabled_and_sound() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jupyterlab.labextensions", "list"],
        capture_output=True,
        text=True,
        check=True,
    )
    text = re.sub(r"\x1b\[\d*m", "", done.stdout + done.stderr)
    line = next(line.strip() for line in text.splitlines() if "holdfast-status" in line)
    version = PROJECT["project"]["version"]
    assert line == f"holdfast-status v{version} enabled OK (python, holdfast)"


def test_its_modules_are_small_and_described() -> None:
    modules = sorted((SOURCE / "src").glob("*.ts"))
    assert modules
    for file in modules:
        text = file.read_text()
        assert text.startswith("/**\n"), f"{file.name}: says not what it is"
        assert len(text.splitlines()) < 400, f"{file.name}: too long"


def test_it_writes_text_only() -> None:
    """Reasons come from schedulers and gateways: none may become HTML."""
    for file in (SOURCE / "src").glob("*.ts"):
        bad = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser", file.read_text()
        )
        assert not bad, f"{file.name}: {bad}"
