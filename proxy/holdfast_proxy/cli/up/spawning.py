"""Starting one child process of the tree, and what ties it to `holdfast up`.

Each child leads a session of its own, so that Ctrl-C in the terminal reaches `holdfast up` alone,
which then stops the children in their order. PR_SET_PDEATHSIG (prctl(2)) sends them SIGTERM when
`holdfast up` dies by a signal that nobody can catch: etcd, proxies and JupyterLab do not stay
behind. Keepers are no children of ours and survive that, which is what they are for.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
#: The child's umask is ours.
INHERIT: Final = -1
#: A log above this is moved to ``<name>.log.1`` when its child starts.
_LOG_BYTES: Final = 16 * 1024 * 1024

#: Loaded before any fork: a child between fork and exec must not load libraries.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make orphans of our children our own children, so that none is out of sight at the end.

    Raises OSError where the kernel refuses (Linux before 3.4).
    """
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


async def spawn(
    argv: Sequence[str], env: Mapping[str, str], log: Path, umask: int = INHERIT
) -> Process:
    """Start ``argv`` with output appended to ``log`` (0600) and no standard input.

    ``umask``: the child's, or INHERIT. Raises OSError when the program cannot be started.
    """
    _rotate(log)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=umask,
            preexec_fn=_tether(os.getpid()),
        )
    finally:
        os.close(output)


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a child's log, for the person who must find out why it died."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 16_384))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def _tether(parent: int) -> Callable[[], None]:
    """What the child does between fork and exec: two system calls and nothing that allocates."""
    prctl, number = _LIBC.prctl, int(signal.SIGTERM)

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        # The parent may have died before prctl: then no signal will ever come.
        if os.getppid() != parent:
            os._exit(1)

    return tie


def _rotate(log: Path) -> None:
    try:
        if log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name(log.name + ".1"))
    except FileNotFoundError:
        pass
