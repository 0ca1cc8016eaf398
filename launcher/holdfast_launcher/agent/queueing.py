"""Starts that wait: handed to an engine that queues, until their keepers dial back.

It knows the engine, the start desk's files and the incarnations; it must not know fences, locks
or HTTP: the agent calls in here under the kernel's lock, the keeper's dial-back comes from the
listener. What a waiting start waits for is told to whoever asks, and to who waits for news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from holdfast_launcher.agent.incarnation import Incarnation, Phase
from holdfast_launcher.agent.launching import LaunchPlan
from holdfast_launcher.engines.contract import Cause, DialBack, Engine, Stage, Submission
from holdfast_launcher.engines.remote.desk import StartDesk, open_start
from holdfast_launcher.state.keeper_files import read_keeper_file

#: How often somebody who waits for news looks at what the engine says, in seconds.
_LOOK = 0.2

_log = structlog.get_logger(__name__)


class Queue:
    """``kernels`` is the agent's table, ``directory`` has one directory for each kernel. ``gone``
    is called when an incarnation's keeper ended; ``on_change`` tells the proxies."""

    def __init__(
        self,
        *,
        engine: Engine,
        kernels: Mapping[str, Incarnation],
        directory: Path,
        gone: Callable[[Incarnation], None],
        on_change: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._kernels = kernels
        self._gone = gone
        self._on_change = on_change
        self._address: tuple[str, str | None] = ("", None)
        #: Where keepers on other machines claim their starts.
        self.desk = StartDesk(directory)

    def __repr__(self) -> str:
        return f"Queue({self._engine!r})"

    def answer_at(self, url: str, fingerprint: str | None) -> None:
        """Where keepers find this launcher, and the fingerprint of its certificate."""
        self._address = (url, fingerprint)

    async def submit(self, kernel: Incarnation, plan: LaunchPlan) -> None:
        """Hand the start over. Raises LaunchFailed, OSError, RuntimeError as the engine does."""
        token = await asyncio.to_thread(open_start, kernel.directory, plan.keeper)
        url, fingerprint = self._address
        keeper = await self._engine.submit(
            Submission(
                config=plan.keeper,
                directory=kernel.directory,
                mark=kernel.mark,
                resources=plan.resources,
                dial_back=DialBack(url=url, fingerprint=fingerprint, token=token),
            )
        )
        kernel.keeper = keeper
        _log.info("start submitted", kernel_id=kernel.kernel_id, **keeper.handle)
        self.follow(kernel)
        self._take(kernel)  # it may have been quicker than the answer to our submit

    def follow(self, kernel: Incarnation) -> None:
        """A start that waits, ours or of the launcher before us, is watched from here on."""
        keeper = kernel.keeper
        assert keeper is not None
        kernel.queued = True
        keeper.on_gone(lambda: self._ended(kernel))

    def _ended(self, kernel: Incarnation) -> None:
        ending = None if kernel.keeper is None else kernel.keeper.describe().ending
        # What was accepted and came to nothing is not tried again behind its user's back.
        kernel.begun = ending is None or ending.cause is not Cause.LOST
        self._gone(kernel)

    def dialled_back(self, kernel_id: str) -> None:
        """A keeper on another machine said where it listens; its file is in place."""
        kernel = self._kernels.get(kernel_id)
        if kernel is not None:
            self._take(kernel)

    def _take(self, kernel: Incarnation) -> None:
        file = read_keeper_file(kernel.directory)
        if not kernel.queued or not kernel.alive or file is None or file.nonce != kernel.nonce:
            return
        kernel.queued = False
        kernel.take_file(file)
        kernel.phase, kernel.reason = Phase.ALIVE, None
        _log.info("keeper dialled back", kernel_id=kernel.kernel_id, host=file.endpoint.host)
        self._on_change()

    async def wait_news(self, kernel_id: str, *, timeout: float) -> None:
        """Return when a start that waits does so no more or for something else, or after
        ``timeout`` seconds; at once when nothing of that kernel waits."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return
        said = kernel.waits_for
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            if not kernel.queued or kernel.waits_for != said or loop.time() > deadline:
                return
            await asyncio.sleep(_LOOK / 4 if _is_near(kernel) else _LOOK)


def _is_near(kernel: Incarnation) -> bool:
    return kernel.keeper is not None and kernel.keeper.describe().stage is Stage.STARTING


def death_reason(kernel: Incarnation) -> str:
    """Why an incarnation is dead whose keeper has ended: the engine's word and the keeper's."""
    keeper_reason = (kernel.keeper and kernel.keeper.reason) or "the keeper is gone"
    said = kernel.activity.read().reason
    if said is None or said in keeper_reason:
        return keeper_reason
    ending = None if kernel.keeper is None else kernel.keeper.describe().ending
    if ending is not None and ending.cause not in (Cause.UNKNOWN, Cause.EXIT, Cause.CANCELLED):
        return keeper_reason  # the infrastructure knows it better
    return f"{said}; {keeper_reason}"
