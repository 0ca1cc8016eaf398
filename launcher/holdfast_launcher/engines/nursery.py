"""Keeps one zygote ready, and starts another when it dies; keepers never notice.

It knows zygote processes and asyncio; it must not know kernels. Importing takes a zygote most of
a second, so it is started at once and in the background, and a dead one is replaced when it dies,
not when the next kernel is wanted. One that dies young is replaced ever more slowly, but at once
when somebody wants a kernel: then the error is his to see.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

import structlog

from holdfast_launcher.engines.zygote_link import ZygoteBroken, ZygoteGone, ZygoteLink
from holdfast_launcher.reaper import Reaper, describe_status

_IMPORT_TIMEOUT = 60.0
_FORK_TIMEOUT = 10.0
#: A zygote that lived shorter than this counts as failed.
_YOUNG = 10.0
_MAX_DELAY = 30.0

_log = structlog.get_logger(__name__)


class Nursery:
    """Use on one loop. ``reaper`` is None where the caller's children are not ours to collect."""

    def __init__(
        self, *, modules: tuple[str, ...], environment: Mapping[str, str], reaper: Reaper | None
    ) -> None:
        self._modules = modules
        self._environment = environment
        self._reaper = reaper
        self._lock = asyncio.Lock()
        self._link: ZygoteLink | None = None
        self._ready: asyncio.Task[None] | None = None
        self._pidfd: int | None = None
        self._born = 0.0
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"Nursery(zygote={self.pid}, failures={self._failures})"

    @property
    def pid(self) -> int | None:
        """The present zygote's; None between two."""
        return None if self._link is None else self._link.pid

    def start(self) -> None:
        """Start a zygote in the background unless there is one."""
        if self._link is not None or self._closed:
            return
        loop = asyncio.get_running_loop()
        link = ZygoteLink(modules=self._modules, environment=self._environment)
        self._link, self._born = link, time.monotonic()
        self._ready = loop.create_task(asyncio.to_thread(link.wait_ready, timeout=_IMPORT_TIMEOUT))
        # Whoever forks awaits it and gets the error; nobody may, and then the death is logged.
        self._ready.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._pidfd = None if link.process is None else link.process.open()
        if self._pidfd is None:
            loop.call_soon(self._died, link)
        else:
            loop.add_reader(self._pidfd, self._died, link)

    async def fork(self, order: dict[str, Any], ready_fd: int) -> int:
        """Have a keeper forked; answer its pid.

        Raises ZygoteGone: try again with the same order unless the ready pipe shows a keeper.
        Raises ZygoteBroken: no keeper, and why.
        """
        async with self._lock:
            self.start()
            link, ready = self._link, self._ready
            if link is None or ready is None:
                raise ZygoteBroken("the launcher is stopping")
            try:
                await asyncio.shield(ready)
                return await asyncio.to_thread(link.fork, order, ready_fd, timeout=_FORK_TIMEOUT)
            except ZygoteGone:
                self._discard(link)
                raise

    def close(self) -> None:
        """Let the zygote end by end of file. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._discard(self._link)

    def _died(self, link: ZygoteLink) -> None:
        status = self._status(link.pid)
        self._discard(link)
        if self._closed:
            return
        young = time.monotonic() - self._born < _YOUNG
        self._failures = self._failures + 1 if young else 0
        delay = min(0.1 * 2**self._failures, _MAX_DELAY) if self._failures else 0.0
        _log.warning(
            "zygote gone", pid=link.pid, how=describe_status(status), next_in_seconds=delay
        )
        self._timer = asyncio.get_running_loop().call_later(delay, self.start)

    def _discard(self, link: ZygoteLink) -> None:
        link.close()
        if self._link is not link:
            return
        self._link = None
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _status(self, pid: int) -> int | None:
        if self._reaper is not None:
            return self._reaper.take(pid)
        with contextlib.suppress(ChildProcessError):
            done, status = os.waitpid(pid, os.WNOHANG)
            return status if done else None
        return None
