"""What the files in a kernel's state directory say, read by those who did not write them.

It knows the files of docs/reference/wire.md ("Keeper") and must not know processes or HTTP. The
keeper and its launcher may be of different versions: unknown fields are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from holdfast_launcher.engines.zygote import LAUNCH_FILE
from holdfast_launcher.processes import ProcessGroup, ProcessId, machine_boot_id
from holdfast_launcher.state.statefiles import read_json

_T = TypeVar("_T", bound=Struct)

KEEPER_FILE = "keeper.json"
ACTIVITY_FILE = "activity.json"
EVIDENCE_FILE = "evidence.json"


class Endpoint(Struct, frozen=True):
    host: str
    port: int


class KernelProcess(Struct, frozen=True, kw_only=True):
    """``kernel`` in ``keeper.json``."""

    pid: int
    pgid: int
    start_time: int


class KeeperFile(Struct, frozen=True, kw_only=True):
    """``keeper.json``. ``process`` is None before the kernel's first start and after its last, and
    may be up to a second behind."""

    kernel_id: str
    nonce: str
    pid: int
    start_time: int
    endpoint: Endpoint
    fingerprint: str | None = None
    credential: str
    epoch: str
    spec: str
    user: str
    process: KernelProcess | None = msgspec.field(name="kernel", default=None)

    def __repr__(self) -> str:
        return f"KeeperFile(kernel_id={self.kernel_id!r}, pid={self.pid})"

    @property
    def group(self) -> ProcessGroup | None:
        """The kernel's process group, when the kernel leads one of its own."""
        if self.process is None or self.process.pgid != self.process.pid:
            return None
        return ProcessGroup(self.process.pgid, self.process.start_time)

    @property
    def kernel(self) -> ProcessId | None:
        """The kernel's process."""
        if self.process is None:
            return None
        return ProcessId(self.process.pid, self.process.start_time)


class LaunchFile(Struct, frozen=True, kw_only=True):
    """``launch.json``, the forked keeper's first act."""

    kernel_id: str
    nonce: str
    pid: int
    start_time: int
    machine_boot_id: str

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start_time)

    @property
    def this_boot(self) -> bool:
        """False: the machine was booted since, so nothing of that time runs."""
        return self.machine_boot_id == machine_boot_id()


class Activity(Struct, frozen=True, kw_only=True):
    """``activity.json``."""

    execution_state: str = "starting"
    last_activity: str | None = None
    connections: int = 0
    reason: str | None = None


def read_keeper_file(directory: Path) -> KeeperFile | None:
    return _convert(read_json(directory / KEEPER_FILE), KeeperFile)


def read_launch_file(directory: Path) -> LaunchFile | None:
    return _convert(read_json(directory / LAUNCH_FILE), LaunchFile)


def _convert(document: dict[str, Any] | None, kind: type[_T]) -> _T | None:
    if document is None:
        return None
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError:
        return None


@dataclass(slots=True)
class ActivityReader:
    """One keeper's activity, read again only when the file changed: a stat per question."""

    directory: Path
    _mtime: int = field(default=-1, init=False)
    _last: Activity = field(default_factory=Activity, init=False)

    def read(self) -> Activity:
        path = self.directory / ACTIVITY_FILE
        try:
            # Replaced atomically, so a new file has a new inode even within one clock tick.
            info = path.stat()
        except OSError:
            return self._last
        stamp = info.st_mtime_ns ^ (info.st_ino << 64)
        if stamp != self._mtime:
            found = _convert(read_json(path), Activity)
            if found is not None:
                self._last, self._mtime = found, stamp
        return self._last
