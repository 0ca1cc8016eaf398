"""Processes by identity: a pid alone names a place, pid and start time name a process.

It knows /proc, pidfds and signals (Linux, see proc(5) and pidfd_open(2)); it must not know
keepers or kernels. Every signal goes through a pidfd that was checked against the start time
*after* it was opened, so that a reused pid is never hit. Rejected: psutil (its equality allows
for rounding, and it opens many files a process) and ``os.kill``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True, order=True)
class ProcessId:
    """``start_time`` is field 22 of /proc/<pid>/stat: clock ticks after boot."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this pid now; None when there is none, or a zombie."""
        found = _read_stat(pid)
        return None if found is None else cls(pid, found.start_time)

    @property
    def running(self) -> bool:
        """False once it ended, also while it is a zombie; True while it is stopped."""
        return ProcessId.of(self.pid) == self

    def open(self) -> int | None:
        """A pidfd of exactly this process, or None when it is gone. The caller closes it."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        # The pid cannot be reused while a pidfd of its process is checked against the stat that
        # we read afterwards: same start time means same process.
        try:
            same = self.running
        except OSError:
            os.close(fd)
            raise
        if same:
            return fd
        os.close(fd)
        return None

    def send(self, signum: int) -> bool:
        """Send a signal; False when the process is gone."""
        fd = self.open()
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, signum)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """A process group by its leader's identity."""

    pgid: int
    start_time: int

    def members(self) -> list[ProcessId]:
        """Who is in it now. None when the leader's pid belongs to another process by now.

        A pid is not given out again while a group of that number has members (POSIX 4.12), so
        members without a leader are still ours.
        """
        leader = _read_stat(self.pgid, zombies=True)
        if leader is not None and leader.start_time != self.start_time:
            return []
        return [
            ProcessId(pid, found.start_time)
            for pid in _pids()
            if (found := _read_stat(pid)) is not None and found.group == self.pgid
        ]


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    group: int
    start_time: int


def _read_stat(pid: int, *, zombies: bool = False) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses and may itself hold spaces and parentheses.
    fields = text[text.rindex(b")") + 2 :].split()
    state = fields[0].decode()
    if state in "ZX" and not zombies:
        return None
    return _Stat(state=state, group=int(fields[2]), start_time=int(fields[19]))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked(variable: str, value: str) -> list[ProcessId]:
    """Processes of this user that were started with ``variable=value`` in the environment."""
    needle = f"{variable}={value}".encode()
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        # Another user's process, or one that is gone meanwhile: neither is ours.
        with contextlib.suppress(PermissionError, FileNotFoundError, ProcessLookupError):
            process = ProcessId.of(pid)
            content = Path(f"/proc/{pid}/environ").read_bytes()
            if process is not None and needle in content.split(b"\0"):
                found.append(process)
    return found


def machine_boot_id() -> str:
    """Changes with every boot of the machine: start times are comparable within one only."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def wait_ended(processes: list[ProcessId], *, timeout: float) -> list[ProcessId]:
    """Block until all have ended or ``timeout`` seconds passed; answer who has not.

    For the command line only: the agent waits on pidfds in its loop.
    """
    deadline = time.monotonic() + timeout
    left = [process for process in processes if process.running]
    while left and time.monotonic() < deadline:
        fd = left[0].open()
        if fd is not None:
            try:
                _poll_readable(fd, max(0.0, deadline - time.monotonic()))
            finally:
                os.close(fd)
        left = [process for process in left if process.running]
    return left


def _poll_readable(fd: int, timeout: float) -> None:
    import select

    poller = select.poll()
    poller.register(fd, select.POLLIN)
    poller.poll(timeout * 1000)


def become_subreaper() -> None:
    """Orphans below this process become its children (prctl(2)), so that it sees them end."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def become_undumpable() -> None:
    """No core file and no ptrace or /proc/<pid>/mem by the same user: memory holds secrets."""
    _prctl(_PR_SET_DUMPABLE, 0)


def set_process_name(name: str) -> None:
    """What ps and top show; the first 15 bytes count."""
    _libc.prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]), 0, 0, 0)


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
