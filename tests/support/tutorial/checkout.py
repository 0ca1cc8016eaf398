"""An environment in a clone, as `make run` would make it, without asking a package registry.

It has the packages of the environment that runs the tests, and Holdfast from the clone. With
HOLDFAST_TUTORIAL_CLEAN=1 nothing is prepared, and `make run` installs everything itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

_SCRIPTS = ("holdfast", "jupyter", "jupyter-lab", "jupyter-server")
_PACKAGES = ("protocol", "proxy", "launcher", "client_shim")


def is_clean() -> bool:
    """Whether the tutorial is to install everything."""
    return bool(os.environ.get("HOLDFAST_TUTORIAL_CLEAN"))


def clone(source: Path, target: Path) -> None:
    """A clone of ``source`` with an environment."""
    command = ["git", "-c", "safe.directory=*", "clone", "--quiet", str(source), str(target)]
    subprocess.run(command, check=True)
    prepare(target)


def prepare(clone: Path) -> None:
    """Make ``.venv`` in ``clone`` from the present environment."""
    venv, present = clone / ".venv", Path(sys.prefix)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = [*(clone / package for package in _PACKAGES), sysconfig.get_path("purelib")]
    pth = venv / "lib" / version / "site-packages" / "tutorial.pth"
    pth.write_text("".join(f"{path}\n" for path in paths))
    for name in _SCRIPTS:
        source = (present / "bin" / name).read_text().split("\n", 1)[1]
        (venv / "bin" / name).write_text(f"#!{venv}/bin/python\n{source}")
        (venv / "bin" / name).chmod(0o755)
    for name in ("etc", "share"):
        (venv / name).symlink_to(present / name)
    for stamp in (".holdfast-all", ".holdfast-dev"):
        (venv / stamp).touch()
