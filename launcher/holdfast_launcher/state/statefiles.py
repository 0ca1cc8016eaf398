"""Files and directories that only the launcher's user may read, replaced atomically.

It knows permissions, fsync and rename; it must not know what is in the files. A reader sees the
old content or the new one, never a part (rename(2)); with ``durable`` the new one is on the disk
when the call returns, directory entry included. Rejected: ``os.umask`` (process-wide, kernels
would inherit it and write the user's notebooks 0600).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

#: More than any state file of ours; a longer one is not ours.
_MAX_BYTES = 1 << 20


def make_private_directory(path: Path) -> None:
    """Create ``path`` (and parents) as 0700, or tighten it when it is ours.

    Raises PermissionError when it belongs to somebody else: whoever owns a directory can replace
    what is in it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = path.stat()
    if info.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to uid {info.st_uid}, not to uid {os.geteuid()}")
    if stat.S_IMODE(info.st_mode) & 0o077:
        path.chmod(0o700)


def write_private(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replace ``path`` by ``data`` as 0600. ``durable``: survives a power cut from here on."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_directory(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """``write_private`` of a JSON document."""
    write_private(path, json.dumps(value, separators=(",", ":")).encode(), durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``; None when there is no such file or it holds something else.

    A damaged file reads as none: every caller then falls back on evidence from the processes.
    """
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def read_secret(path: Path) -> str:
    """The secret in a file that nobody else can read.

    Raises PermissionError when group or world may read it, ValueError when it is empty.
    """
    with path.open("rb") as file:
        info = os.fstat(file.fileno())
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise PermissionError(
                f"{path} may be read by others (mode {stat.S_IMODE(info.st_mode):04o}): "
                f"chmod 600 it and replace the secret"
            )
        text = file.read(4096).decode("utf-8", "strict").strip()
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def obtain_secret(path: Path) -> str:
    """The secret in ``path``, made on the first call, so that a restart keeps it."""
    try:
        return read_secret(path)
    except FileNotFoundError:
        value = secrets.token_urlsafe(32)
        write_private(path, value.encode(), durable=True)
        return value


def remove_directory(path: Path) -> None:
    """Remove ``path`` and all in it. Raises OSError when it does not go; no error: no such path."""
    # A keeper that was just killed may still have had a write under way: its file is gone anyway.
    for _attempt in range(3):
        with contextlib.suppress(FileNotFoundError, OSError):
            shutil.rmtree(path)
        if not path.exists():
            return
    shutil.rmtree(path)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
