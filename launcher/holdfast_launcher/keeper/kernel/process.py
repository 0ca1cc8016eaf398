"""A kernel process that somebody else made: wait for its end, signal it, clean up after it.

Two kinds: one that we started through a jupyter_client provisioner (any plug-in), and one that
an earlier keeper started and that we adopt by its pid. Both are told of an exit at once by a
pidfd where the process is on this host, and asked ten times a second where it is not.
It knows no sockets and decides nothing about restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Final

from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

#: Seconds between two questions to a provisioner that has no local process.
_POLL: Final = 0.1
_START_TIME_FIELD: Final = 19  # field 22 of /proc/<pid>/stat (proc(5)), counted after the name


def start_time_of(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks since boot; None when there is no such process.

    With the pid it names a process for good: pids come again, the pair does not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        fields = stat[stat.rindex(")") + 2 :].split()
        return None if fields[0] in "ZX" else int(fields[_START_TIME_FIELD])
    except (OSError, ValueError, IndexError):
        return None


async def wait_pidfd(pid: int) -> bool:
    """Return True when the process has ended; False when this cannot be told by a pidfd."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except (OSError, AttributeError):
        return False
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return True


class KernelProcess(ABC):
    """``wait`` is called by one task only; everything else may be called at any time."""

    pid: int | None

    @abstractmethod
    async def wait(self) -> int | None:
        """Return the exit status as subprocess has it, or None when it cannot be known.

        Its process group is killed before the leader is reaped: while the zombie stands, the
        group's number cannot belong to somebody else.
        """

    @abstractmethod
    async def interrupt(self) -> None: ...

    @abstractmethod
    async def terminate(self) -> None: ...

    @abstractmethod
    async def kill(self) -> None: ...

    async def shutdown_requested(self, *, restart: bool) -> None:  # noqa: B027 - most do nothing
        """The kernel was asked to end: a provisioner may have something to do about it."""

    def wait_time(self, recommended: float) -> float:
        """How long to wait for a polite end, in seconds."""
        return recommended

    async def cleanup(self, *, restart: bool) -> None:  # noqa: B027 - most do nothing
        """Release what the provisioner holds. The process has ended."""


class ProvisionedProcess(KernelProcess):
    """Started by a ``jupyter_client.kernel_provisioners`` plug-in."""

    def __init__(self, provisioner: KernelProvisionerBase) -> None:
        self._provisioner = provisioner
        pid = getattr(provisioner, "pid", None)
        ip = getattr(provisioner, "ip", None)
        # A plug-in that starts kernels elsewhere may have a pid that means nothing here.
        process: Any = getattr(provisioner, "process", None)
        local = isinstance(pid, int) and getattr(process, "pid", None) == pid and not ip
        self.pid = pid if isinstance(pid, int) else None
        self._local = local

    def __repr__(self) -> str:
        return f"ProvisionedProcess({type(self._provisioner).__name__}, pid {self.pid})"

    async def wait(self) -> int | None:
        watched = self._local and self.pid is not None and await wait_pidfd(self.pid)
        # A provisioner can only be asked.
        while not watched and await self._provisioner.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)
        if watched:  # not reaped yet
            with contextlib.suppress(OSError):
                await self._provisioner.kill()
        status = await self._provisioner.poll()
        await self._provisioner.wait()
        return status

    async def interrupt(self) -> None:
        await self._signal(self._provisioner.send_signal(signal.SIGINT))

    async def terminate(self) -> None:
        await self._signal(self._provisioner.terminate())

    async def kill(self) -> None:
        await self._signal(self._provisioner.kill())

    async def _signal(self, sending: Any) -> None:
        # Ended in between: what was wanted is so, and ``wait`` says it.
        with contextlib.suppress(ProcessLookupError):
            await sending

    async def shutdown_requested(self, *, restart: bool) -> None:
        await self._provisioner.shutdown_requested(restart=restart)

    def wait_time(self, recommended: float) -> float:
        return self._provisioner.get_shutdown_wait_time(recommended=recommended)

    async def cleanup(self, *, restart: bool) -> None:
        await self._provisioner.cleanup(restart=restart)


class AdoptedProcess(KernelProcess):
    """A living process of an earlier keeper, named by pid and start time."""

    def __init__(self, pid: int, pgid: int, start_time: int) -> None:
        self.pid: int = pid
        self._pgid = pgid
        self._start_time = start_time

    def __repr__(self) -> str:
        return f"AdoptedProcess(pid {self.pid})"

    @property
    def alive(self) -> bool:
        return start_time_of(self.pid) == self._start_time

    async def wait(self) -> int | None:
        while self.alive:
            if not await wait_pidfd(self.pid):
                await asyncio.sleep(_POLL)
        return None

    async def interrupt(self) -> None:
        self._send(signal.SIGINT)

    async def terminate(self) -> None:
        self._send(signal.SIGTERM)

    async def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, signum: int) -> None:
        if not self.alive:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._pgid == self.pid:
                os.killpg(self._pgid, signum)
            else:
                os.kill(self.pid, signum)
