"""What a kernel process writes to its own stdout and stderr, in a bounded 0600 file.

A failed start shows its last lines. It is a file and not a pipe, because a kernel must outlive
its keeper: with a pipe, its next write to stderr would end it. The file is in append mode, so
cutting it while the kernel writes is safe: the next write goes to the new end.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: Above this many bytes the file is cut (by ``trim``) to its last ``_KEEP``.
_LIMIT: Final = 1024 * 1024
_KEEP: Final = 64 * 1024


class OutputFile:
    """One kernel's raw output; each incarnation begins with an empty file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"OutputFile({self.path.name!r})"

    def open_for_kernel(self) -> int:
        """A descriptor to hand to the process; the caller closes it. Empties the file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC | os.O_CLOEXEC
        return os.open(self.path, flags, 0o600)

    def tail(self, lines: int = 40) -> str:
        """The last lines, or nothing when there is no file."""
        try:
            data = self._read_tail()
        except OSError:
            return ""
        return "\n".join(data.decode("utf-8", "replace").splitlines()[-lines:])

    def trim(self) -> None:
        """Keep the file within its bound; called now and then."""
        try:
            if self.path.stat().st_size <= _LIMIT:
                return
            keep = self._read_tail()
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.ftruncate(fd, 0)
                os.write(fd, keep)
            finally:
                os.close(fd)
        except OSError:
            return  # removed by somebody, or a full disk: the output is only a help

    def _read_tail(self) -> bytes:
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _KEEP))
            return file.read(_KEEP)
