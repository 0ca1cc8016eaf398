"""What a test may need from the machine: in CI a missing package fails, elsewhere it is skipped.

The packages are those of requirements/system.txt, which `make system-deps` installs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_LIST = Path(__file__).parents[2] / "requirements" / "system.txt"


def system_packages() -> dict[str, str]:
    """Debian package name → what uses it."""
    packages = {}
    for line in _LIST.read_text().splitlines():
        name, _, use = line.partition("#")[0].partition(" ")
        if name:
            packages[name] = use.strip()
    return packages


def need_command(command: str, *, package: str) -> str:
    """The path of ``command``; skips the test, or fails it in CI, when it is not installed."""
    assert package in system_packages(), f"{package} is not in {_LIST.name}: add it there"
    found = shutil.which(command)
    if found is None:
        missing = f"`{command}` is missing (Debian package {package}): make system-deps"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found
