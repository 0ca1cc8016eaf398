"""What the logs of all kernels of one node may take of its disk together.

Keepers agree on it by files in one directory and by nothing else, so that it holds while the
launcher is away and costs no call on the data path. Each keeper has a file there whose *length*
is what its log has on disk (sparse: it takes no room itself), and holds a lock on it for as long
as it lives; the file ``quota`` says what they may have together. Nobody is told to trim: whoever
looks finds out by the same rule (``level``) whether it is above its share, and trims itself.

It must not know entries or sessions. Rejected: limits that the launcher hands out (none while it
is away, and a call to each keeper when one grows); one file with a table (every keeper would
write everybody's); measuring the disk (segments have no names).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

QUOTA_FILE = "quota"
#: Others' files are looked at after so many bytes of one's own writing.
LOOK_BYTES = 16 * 1024 * 1024
_SUFFIX = ".bytes"


def level(sizes: Sequence[int], quota: int) -> int:
    """The highest size that every log may have: those above it are to be cut down to it.

    Max-min fair: the sum of ``min(size, level)`` is the quota at most, and no log loses anything
    as long as a larger one has more than it. Equal to the largest size when all fit.
    """
    left, above = quota, len(sizes)
    for size in sorted(sizes):
        if size * above > left:
            return left // above
        left -= size
        above -= 1
    return max(sizes, default=0)


class NodeQuota:
    """One log's part in the node's quota. ``name`` is unique on the node (the kernel's id).

    Nothing here raises: without the directory a log is bounded by its own limit alone.
    """

    def __init__(self, directory: Path, *, name: str) -> None:
        self._directory = directory
        self._path = directory / f"{name}{_SUFFIX}"
        self._descriptor: int | None = None
        self._failed = False
        self._mine = 0
        self._written = 0

    def __repr__(self) -> str:
        return f"<NodeQuota {self._path.name} {self._mine} bytes>"

    def note(self, size: int) -> bool:
        """The log has ``size`` bytes on disk now; True when it is time for ``excess``."""
        if size != self._mine:
            self._written += max(0, size - self._mine)
            self._mine = size
            self._publish()
        return self._written >= LOOK_BYTES

    def excess(self) -> int:
        """How many bytes of this log are above its share of the quota just now."""
        self._written = 0
        if not self._mine:
            return 0
        try:
            quota = int((self._directory / QUOTA_FILE).read_text())
            others = self._others(sure=False)
            if self._mine + sum(others) <= quota:
                return 0
            others = self._others(sure=True)
        except (OSError, ValueError) as error:
            self._fail(error)
            return 0
        return max(0, self._mine - level([self._mine, *others], quota))

    def close(self) -> None:
        """The log is gone. Idempotent."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def _publish(self) -> None:
        try:
            if self._descriptor is None:
                self._descriptor = self._enter()
            os.ftruncate(self._descriptor, self._mine)
        except OSError as error:
            self._fail(error)

    def _enter(self) -> int:
        """Make our file: locked before it has its name, so that nobody takes it for a dead one's.

        A keeper that took this kernel over replaces the file of the one before.
        """
        fresh = self._path.with_suffix(f".{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            fresh.replace(self._path)
        except OSError:
            fresh.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return descriptor

    def _others(self, *, sure: bool) -> list[int]:
        """Sizes of the other logs; ``sure`` asks whether their keepers live, and removes the
        files of those that do not: their segments went with them."""
        sizes = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if not entry.name.endswith(_SUFFIX) or entry.name == self._path.name:
                    continue
                with contextlib.suppress(FileNotFoundError):  # ended meanwhile
                    if not sure or _is_held(entry.path):
                        sizes.append(entry.stat().st_size)
        return sizes

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            _log.warning("log.no_node_quota", directory=str(self._directory), error=str(error))
            self._failed = True


def _is_held(path: str) -> bool:
    """Whether the keeper of this file lives; removes the file when it does not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        # Between our open and our lock another keeper may have put its own in this place.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                os.unlink(path)
        return False
    finally:
        os.close(descriptor)
