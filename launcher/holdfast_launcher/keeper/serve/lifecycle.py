"""Start, interrupt, restart, shutdown: when each may take effect, and on what it waits.

The order of one call: the fence is acknowledged on disk, the client's earlier messages are
accepted (``Holdfast-After``), the operations before it are over, the fence is asked once more
without an await in between, then the kernel side acts. So a call of an owner that lost its
claim while it waited has no effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from holdfast_protocol.fencing import Token

from ..fence import Fence
from ..ports import KernelHost, KernelStartFailed
from .hub import Hub
from .requests import Request

_log = structlog.get_logger(__name__)

AFTER_TIMEOUT: Final = 5.0
#: How long an interrupt waits for the kernel to begin what it was just given.
BEGIN_TIMEOUT: Final = 0.5
#: Between a cell's ``execute_input`` and its own code ipykernel runs code of its own that does
#: not survive a signal (measured: 5 of 11 cells interrupted there got no reply or ran on).
BEGIN_SETTLE: Final = 0.1
#: How long after an interrupt a cell is watched for an idle without a reply …
WATCH_SECONDS: Final = 60.0
#: … and how long the reply may still be on its way then, over its own socket.
REPLY_GRACE: Final = 1.0


@dataclass(frozen=True, slots=True)
class After:
    """``Holdfast-After``: the session's messages up to ``seq`` come first."""

    session_id: str
    seq: int

    @classmethod
    def parse(cls, text: str) -> After:
        """From ``session:seq``, split at the last colon. Raises ValueError."""
        session_id, colon, seq = text.rpartition(":")
        if not (colon and session_id and seq.isascii() and seq.isdigit()) or len(seq) > 20:
            raise ValueError(f"not a Holdfast-After: {text[:80]!r}")
        return cls(session_id, int(seq))


class NonceMismatch(Exception):
    """The start is for another incarnation of this kernel's record."""


class KernelGone(Exception):
    """The kernel is being shut down for good; nothing else can be asked of it."""


class Lifecycle:
    """The operations on one kernel. ``nonce``: of the start that this keeper is for."""

    def __init__(self, *, hub: Hub, host: KernelHost, fence: Fence, nonce: str) -> None:
        self._hub = hub
        self._host = host
        self._fence = fence
        self._nonce = nonce
        self._starting: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._progress: set[asyncio.Future[None]] = set()
        self._watching: set[asyncio.Task[None]] = set()
        self._ending = False

    def __repr__(self) -> str:
        return f"<Lifecycle {self._host.info()} ending={self._ending}>"

    @property
    def kernel_runs(self) -> bool:
        """Whether there is a kernel that ending this keeper would leave unwatched."""
        if self._starting is not None and not self._starting.done():
            return True
        info = self._host.info()
        return bool(info.incarnation) and info.execution_state != "dead"

    def moved(self) -> None:
        """Something was accepted or said: whoever waits looks again. Called for every message,
        so it costs nothing when nobody waits."""
        if self._progress:
            for waiter in self._progress:
                if not waiter.done():
                    waiter.set_result(None)
            self._progress.clear()

    async def start(self, token: Token, nonce: str) -> None:
        """Start the kernel unless it was; return when it answers.

        Raises NonceMismatch, StaleToken, KernelGone, KernelStartFailed (a later call tries again).
        """
        if nonce != self._nonce:
            raise NonceMismatch(f"this keeper is for start {self._nonce}, not {nonce}")
        self._fence.check(token)
        self._refuse_when_ending()
        if self._starting is None or _failed(self._starting):
            if self._host.info().incarnation and not self._started_badly():
                return  # adopted: it runs
            self._starting = asyncio.get_running_loop().create_task(self._host.start())
        await asyncio.shield(self._starting)

    async def adopt(self) -> None:
        """Take over the kernel of the keeper that was here before, with nobody asking for it: it
        runs, and clients come back to it. Raises KernelStartFailed; nothing can be started then.
        """
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._host.start())
        try:
            await asyncio.shield(self._starting)
        except KernelStartFailed:
            # A start now would be of an empty kernel, under a keeper that is about to end.
            self._ending = True
            raise

    async def interrupt(self, after: list[After]) -> None:
        """Interrupt what runs, after what the client sent before it. Raises InvalidState.

        Safety rule: an interrupt that found one incarnation running never stops the next one's
        work, whatever it waited for. When its incarnation ended meanwhile, so did what it was
        meant for; it is then done, because a caller who is told to ask again would ask too late.
        """
        meant = self._running_incarnation()
        await self._accepted(after)
        requests = self._hub.requests
        await self._wait_until(
            lambda: requests.anything_started() or not requests.waiting_to_start(), BEGIN_TIMEOUT
        )
        settle = BEGIN_SETTLE - self._hub.since_begun()
        if settle > 0:
            await asyncio.sleep(settle)
        if meant is not None and meant != self._running_incarnation():
            _log.info("lifecycle.interrupt_outlived", incarnation=meant)
            return
        running = requests.running()
        await self._host.interrupt()
        for request in running:
            task = asyncio.get_running_loop().create_task(self._see_answered(request))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)

    async def _see_answered(self, request: Request) -> None:
        """A signal that meets ipykernel's own code costs the cell its reply: give one then."""

        def ended() -> bool:
            return request.answered or bool(request.idle_seq)

        if not await self._wait_until(ended, WATCH_SECONDS):
            return  # it goes on: its code may have caught the interrupt
        if not await self._wait_until(lambda: request.answered, REPLY_GRACE):
            _log.warning("kernel.no_reply", to=request.msg_id, why="it was interrupted")
            self._hub.give_up(request)

    async def restart(self, token: Token, after: list[After]) -> None:
        """End this incarnation and start the next. Raises StaleToken, KernelGone,
        KernelStartFailed."""
        await self._accepted(after)
        async with self._one_at_a_time:
            if self._starting is not None and not self._starting.done():
                await asyncio.wait({self._starting})
            self._fence.check(token)
            self._refuse_when_ending()
            await self._host.restart()

    async def shutdown(self, token: Token, *, now: bool) -> None:
        """End the kernel for good. Raises StaleToken."""
        self._fence.check(token)
        self._ending = True
        # Not behind _one_at_a_time: a restart that hangs must not keep a kernel from ending.
        await self._host.shutdown(now=now)

    def _running_incarnation(self) -> int | None:
        info = self._host.info()
        return info.incarnation if info.execution_state in ("idle", "busy") else None

    def _refuse_when_ending(self) -> None:
        if self._ending:
            raise KernelGone("the kernel is being shut down")

    def _started_badly(self) -> bool:
        return self._starting is not None and _failed(self._starting)

    async def _accepted(self, after: list[After]) -> None:
        def arrived() -> bool:
            accepted = self._hub.sessions.accepted
            return all(accepted(point.session_id) >= point.seq for point in after)

        if not await self._wait_until(arrived, AFTER_TIMEOUT):
            # The message may never come; the call is what the user asked for now.
            _log.warning("lifecycle.after_timeout", waited_for=[repr(point) for point in after])

    async def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    waiter: asyncio.Future[None] = loop.create_future()
                    self._progress.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._progress.discard(waiter)
        except TimeoutError:
            return False
        return True


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


__all__ = ["After", "KernelGone", "KernelStartFailed", "Lifecycle", "NonceMismatch"]
