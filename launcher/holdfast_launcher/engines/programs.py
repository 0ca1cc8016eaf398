"""Running a program and reading what it said, in a process that reaps every child it has.

The launcher is a subreaper whose ``Reaper`` collects all exit statuses, so asyncio's own
subprocesses would often be told that theirs is unknown; here the status comes from the reaper.
Input and output are files in memory: nothing is read while the program runs, so nothing can fill.
It must not know what the programs are for. Rejected: a shell, and threads that wait.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast_launcher.reaper import Reaper

#: What a program says beyond this is not read.
_MAX_OUTPUT = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Said:
    """How a program ended: ``status`` as wait(2) has it, None when nobody knows."""

    status: int | None
    out: bytes
    err: bytes

    @property
    def ok(self) -> bool:
        return self.status == 0


async def run_program(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    timeout: float,
    reaper: Reaper | None,
) -> Said:
    """Run ``command`` to its end. Raises FileNotFoundError, TimeoutError (it was killed), OSError.

    ``reaper`` is None where the caller's children are collected by nobody else.
    """
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        raise FileNotFoundError(command[0])
    fds = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
    try:
        os.write(fds[0], stdin)
        os.lseek(fds[0], 0, os.SEEK_SET)
        pid = os.posix_spawn(  # noqa: ASYNC221 - it returns when the program begins
            program,
            list(command),
            dict(environment),
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)],
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE),
        )
        status = await _ended(pid, timeout, reaper)
        out, err = (os.pread(fd, _MAX_OUTPUT, 0) for fd in fds[1:])
        return Said(status, out, err)
    finally:
        for fd in fds:
            os.close(fd)


async def _ended(pid: int, timeout: float, reaper: Reaper | None) -> int | None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:  # ended, and collected by the reaper
        return _status(pid, reaper)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _mark, ended)
    try:
        async with asyncio.timeout(timeout):
            await ended
        return _status(pid, reaper)
    except BaseException:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if reaper is None:
            os.waitpid(pid, 0)  # noqa: ASYNC222 - it was killed
        raise
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _mark(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _status(pid: int, reaper: Reaper | None) -> int | None:
    if reaper is not None:
        return reaper.take(pid)
    return os.waitpid(pid, 0)[1]
