"""A real file system of a few MiB, for what happens when a disk is full."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_LAZY = 2  # MNT_DETACH: goes when the last file in it is closed


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system; ``fill`` leaves not one byte of it."""

    directory: Path

    @property
    def free(self) -> int:
        """Bytes that are left."""
        stat = os.statvfs(self.directory)
        return stat.f_bavail * stat.f_frsize

    def fill(self) -> Path:
        """Write a file until the disk is full; deleting it gives the bytes back."""
        hog = self.directory / "hog"
        with hog.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                return hog


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[SmallDisk]:
    """A tmpfs of ``size`` bytes on ``directory``; a named skip without the right to mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size},mode=0700".encode()
    if libc.mount(b"tmpfs", str(directory).encode(), b"tmpfs", 0, options) != 0:
        pytest.skip(
            f"a disk of a few MiB cannot be mounted here: {os.strerror(ctypes.get_errno())}"
        )
    try:
        yield SmallDisk(directory)
    finally:
        libc.umount2(str(directory).encode(), _LAZY)
