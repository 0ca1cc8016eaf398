"""What a kernel and its keeper wrote to their stdout and stderr, for those who ask why it failed.

The files are the kernel's and the keeper's own; this only reads their ends, within bounds. When a
kernel's directory is removed after it had died, its last words are kept beside it for a day (see
``keep``), because the question is mostly asked then. Must not know phases or HTTP.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from holdfast_launcher.engines.zygote import LOG_FILE
from holdfast_launcher.state.statefiles import make_private_directory, read_json, write_json

#: Where a keeper leaves its kernel's output, below the kernel's directory.
KERNEL_OUTPUT = ("kernel", "output.log")
_KEEPER_OUTPUT = (LOG_FILE,)
#: Bytes that are read of one file.
_READ = 128 * 1024
#: Bytes of one file, seconds and kernels for which last words are kept.
_KEPT_BYTES = 16 * 1024
_KEPT_SECONDS = 86_400.0
_KEPT_KERNELS = 200


class LastWords:
    """``kernels``: the directory that has one directory for each kernel."""

    def __init__(self, kernels: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._kernels = kernels
        self._kept = kernels.parent / "last_words"
        self._clock = clock

    def __repr__(self) -> str:
        return f"LastWords({str(self._kernels)!r})"

    def read(self, kernel_id: str, *, lines: int) -> dict[str, str] | None:
        """The last lines of ``kernel`` and of ``keeper``; None when there is nothing of it."""
        directory = self._kernels / kernel_id
        present = directory.is_dir()
        found = _read_both(directory, _READ) if present else self._read_kept(kernel_id)
        if found is None:
            return None
        return {name: _last_lines(text, lines) for name, text in found.items()}

    def keep(self, directory: Path) -> None:
        """Keep the last words of a dead kernel whose directory is about to go. Never raises:
        they are only a help."""
        with contextlib.suppress(OSError):
            make_private_directory(self._kept)
            words = {"kept_at": self._clock(), "output": _read_both(directory, _KEPT_BYTES)}
            write_json(self._kept / f"{directory.name}.json", words)
            self._forget_old()

    def _read_kept(self, kernel_id: str) -> dict[str, str] | None:
        try:
            words = read_json(self._kept / f"{kernel_id}.json") or {}
        except OSError:
            return None
        output, kept_at = words.get("output"), words.get("kept_at")
        if not isinstance(output, dict) or not isinstance(kept_at, int | float):
            return None
        if self._clock() - kept_at > _KEPT_SECONDS:  # its file goes when the next kernel dies
            return None
        return {str(name): str(text) for name, text in output.items()}

    def _forget_old(self) -> None:
        files = sorted(self._kept.glob("*.json"), key=_changed, reverse=True)
        for number, file in enumerate(files):
            if number >= _KEPT_KERNELS or self._clock() - _changed(file) > _KEPT_SECONDS:
                file.unlink(missing_ok=True)


def _read_both(directory: Path, size: int) -> dict[str, str]:
    return {
        "kernel": _tail(directory, KERNEL_OUTPUT, size),
        "keeper": _tail(directory, _KEEPER_OUTPUT, size),
    }


def _tail(directory: Path, names: tuple[str, ...], size: int) -> str:
    """The end of a file, from the beginning of a line; empty when there is no such file.

    No link is followed and no pipe is waited for: a user's kernel writes in there.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.ExitStack() as opened:
        try:
            fd = os.open(directory, flags | os.O_DIRECTORY)
            opened.callback(os.close, fd)
            for name in names:
                fd = os.open(name, flags, dir_fd=fd)
                opened.callback(os.close, fd)
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                return ""
            data = os.pread(fd, size, max(0, info.st_size - size))
        except OSError:
            return ""
    if info.st_size > size:
        data = data.partition(b"\n")[2] or data
    return data.decode("utf-8", "replace")


def _last_lines(text: str, lines: int) -> str:
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
