"""The state directory of one tree: 0700, its files 0600, one `holdfast up` at a time.

It knows names of files and who may read them; it must not know what the processes say to each
other. Secrets live here as files, so that they are in no argv and no environment of a proxy or a
launcher. The lock is an flock on an open file: it ends with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class StateDirBusy(Exception):
    """Another `holdfast up` holds the directory; the message says which process."""


def default_state_dir() -> Path:
    """``$XDG_STATE_HOME/holdfast`` or ``~/.local/state/holdfast`` (XDG base directories 0.8)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return root / "holdfast"


class StateDir:
    """Use as a context manager: entering makes the directory and takes the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"<StateDir {self.path} {'locked' if self._lock is not None else 'not locked'}>"

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        # Not only by mkdir's mode: the directory may be an earlier one, or the umask a wide one.
        self.path.chmod(0o700)
        for name in ("secrets", "logs"):
            (self.path / name).mkdir(exist_ok=True)
            (self.path / name).chmod(0o700)
        self._lock = self._take_lock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def cluster_file(self) -> Path:
        return self.path / "cluster.json"

    @property
    def children_file(self) -> Path:
        """Which processes belong to the running tree; read after a crash of `holdfast up`."""
        return self.path / "children.json"

    @property
    def ports_file(self) -> Path:
        return self.path / "ports.json"

    @property
    def etcd_data(self) -> Path:
        return self.path / "etcd"

    def config_file(self, name: str) -> Path:
        return self.path / f"{name}.toml"

    def ready_file(self, name: str) -> Path:
        return self.path / f"{name}.ready"

    def log_file(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def secret_file(self, name: str) -> Path:
        return self.path / "secrets" / name

    def secret(self, name: str, *, value: str | None = None) -> str:
        """The secret ``name``: ``value`` when given, else the one kept, else a new one.

        It is kept, so that kernels and launchers of an earlier run are known again.
        """
        file = self.secret_file(name)
        if value is None:
            try:
                value = file.read_text().strip()
            except FileNotFoundError:
                value = ""
        value = value or secrets.token_hex(32)
        # No newline at the end: jupyter_server takes the whole file as its token.
        write_private(file, value)
        return value

    def read_json(self, file: Path) -> Any:
        """The content of one of our JSON files; None when there is none that can be read."""
        try:
            return json.loads(file.read_text())
        except (OSError, ValueError):
            return None

    def _take_lock(self) -> int:
        file = self.path / "lock"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StateDirBusy(
                f"{self.path} is in use by another `holdfast up` (pid {owner}): "
                "stop that one, or give this one a --state-dir of its own"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor


def write_private(file: Path, text: str) -> None:
    """Replace ``file`` by ``text``, mode 0600, atomically: a reader sees the old or the new."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    draft.replace(file)


def write_json(file: Path, value: Any) -> None:
    """``write_private`` with JSON."""
    write_private(file, json.dumps(value, indent=2) + "\n")
