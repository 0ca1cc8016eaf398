"""The state's file: one for each root directory, 0600, replaced as a whole, one owner.

The owner holds a lock that the operating system ends with the process, so no stale one can
stay. Text goes to a new file beside it, which takes its name when it is on the disk: a reader
sees the old state or the new one, also after a machine lost power (which takes the notebook
server with it and not the kernels). For what starts and ends (kernels, sessions) the name is
forced to the disk, too; for where streams are it is not: after such a loss the old state and
the keeper's own account of them will do.

Rejected: syncing only what is durable. XFS, for one, may write a new name before the bytes; the
file is empty then, and the kernels of an earlier, durable write are lost with it.

A file that is not ours, or damaged, is put aside under another name and never written over.
It must not know what the state means.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
import time
from logging import Logger
from pathlib import Path
from typing import Final

#: Seconds for which a server that is just ending may still hold the lock.
HANDOVER: Final = 2.0
#: A file longer than this many bytes is not read: no state of ours comes near.
LARGEST: Final = 256 * 1024 * 1024


class Refused(Exception):
    """The state cannot be kept here; the message says why."""


def path_for(data_dir: str, root_dir: str) -> Path:
    """Where the state of the server with this (absolute) root directory is."""
    digest = hashlib.sha256(os.fsencode(root_dir)).hexdigest()[:24]
    return Path(data_dir) / "holdfast" / "servers" / f"{digest}.json"


class StateFile:
    """Made by ``own``; ``release`` when done. The methods block: call them in a thread when the
    event loop runs."""

    def __init__(self, path: Path, lock: int, log: Logger) -> None:
        self.path = path
        self._lock: int | None = lock
        self._writing = threading.Lock()
        self._log = log

    def __repr__(self) -> str:
        return f"<StateFile {self.path} {'released' if self._lock is None else 'owned'}>"

    @classmethod
    def own(cls, path: Path, log: Logger, *, patience: float | None = None) -> StateFile:
        """Become the owner. Raises Refused when another process is and stays so for ``patience``
        seconds (None: HANDOVER), or when the folder will not do."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(path.with_suffix(".lock"), flags, 0o600)
        except OSError as error:
            raise Refused(f"{path.parent} cannot be used: {error}") from error
        deadline = time.monotonic() + (HANDOVER if patience is None else patience)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    owner = os.read(lock, 32).decode("ascii", "replace").strip()
                    os.close(lock)
                    raise Refused(
                        f"another notebook server (process {owner or 'unknown'}) uses the same "
                        "root directory"
                    ) from None
                time.sleep(0.05)
            except OSError as error:
                os.close(lock)
                raise Refused(f"{path.parent} cannot be locked: {error}") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return cls(path, lock, log)

    def read(self) -> str | None:
        """The text, or None when there is none. One that others could have written, or that is
        no plain file, is put aside."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.put_aside(f"it cannot be opened ({error.strerror})")
            return None
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                self.put_aside("it is not a plain file of this user")
                return None
            if found.st_size > LARGEST:
                self.put_aside(f"it has {found.st_size} bytes")
                return None
            try:
                return file.read().decode()
            except UnicodeDecodeError:
                self.put_aside("it is not text")
                return None

    def put_aside(self, why: str) -> None:
        """Keep what is there under another name, and say so."""
        for number in range(1, 1000):
            aside = self.path.with_suffix(f".aside-{number}")
            if not os.path.lexists(aside):
                break
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            self._log.warning(
                "holdfast: the last run's state in %s was not used: %s. It is kept as %s. Its "
                "kernels go on behind the gateway, but do not belong to this server any more.",
                self.path, why, aside.name,
            )  # fmt: skip

    def copy_aside(self, why: str) -> None:
        """Keep a copy of what is there and is going to be replaced, and say so."""
        copy = self.path.with_suffix(".before")
        with contextlib.suppress(FileNotFoundError):
            copy.unlink()
        with contextlib.suppress(OSError):
            os.link(self.path, copy)
            self._log.warning("holdfast: %s; the state so far is kept as %s", why, copy)

    def write(self, text: str, *, durable: bool) -> None:
        """Replace the file; nothing happens after ``release``. From any thread, one at a time.

        Raises OSError; then the old one is as it was.
        """
        with self._writing:
            if self._lock is not None:
                self._replace(text.encode(), durable=durable)

    def _replace(self, data: bytes, *, durable: bool) -> None:
        fresh = self.path.with_suffix(".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o600)
            file.write(data)
            file.flush()
            os.fsync(handle)
        fresh.replace(self.path)
        if durable:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def release(self) -> None:
        """Let another process own it. Idempotent. Waits for a ``write`` in another thread."""
        with self._writing:
            lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
