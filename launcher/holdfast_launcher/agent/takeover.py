"""A keeper has fallen: have another one take its kernel over, or see the kernel ended.

It carries out what ``succession`` decides. It knows the engine, the kernels' locks and the
endings; it must not know fences or HTTP: nobody asks for a takeover.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from holdfast_launcher.agent.background import Background, Locks
from holdfast_launcher.agent.endings import Endings
from holdfast_launcher.agent.incarnation import Incarnation, Phase
from holdfast_launcher.agent.succession import (
    DiskRefuses,
    find_successor,
    launch_keeper,
    take_turn,
)
from holdfast_launcher.engines.contract import Engine, Keeper, LaunchFailed
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.state.keeper_files import KeeperFile

#: Between two tries of a launcher that has no descriptors, threads, memory or disk left, in
#: seconds.
TRY_AGAIN = 1.0

_log = structlog.get_logger(__name__)


def boot_seconds() -> float:
    """Steady over the launcher's restarts, as the takeovers on disk need it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Takeover:
    """``watch`` makes a launched keeper the incarnation's; ``recognise`` begins to ask one that
    was found whether it is."""

    def __init__(
        self,
        *,
        engine: Engine,
        endings: Endings,
        background: Background,
        locks: Locks,
        watch: Callable[[Incarnation, Keeper, KeeperFile], None],
        recognise: Callable[[Incarnation, Keeper], None],
        on_change: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._endings = endings
        self._background = background
        self._locks = locks
        self._watch = watch
        self._recognise = recognise
        self._on_change = on_change

    def __repr__(self) -> str:
        return f"Takeover({self._background!r})"

    def begin(self, kernel: Incarnation, reason: str, *, settle: float = 0.0) -> bool:
        """Begin to launch a keeper that takes the kernel over; False: the kernel is to be ended.

        ``settle``: what a launcher before us had forked in its last moment appears within so
        many seconds.
        """
        config = find_successor(kernel.directory, nonce=kernel.nonce)
        if config is None or not take_turn(kernel.directory, kernel.takeovers, boot_seconds()):
            return False
        kernel.lose_keeper(f"{reason}; another one is taking over")
        _log.warning("keeper gone, kernel lives", kernel_id=kernel.kernel_id, reason=reason)
        self._background.spawn(self._run(kernel, config, reason, settle=settle))
        return True

    async def _run(
        self, kernel: Incarnation, config: KeeperConfig, reason: str, *, settle: float
    ) -> None:
        await asyncio.sleep(settle)
        look = bool(settle)
        while True:
            async with self._locks.of(kernel.kernel_id):
                if kernel.phase is not Phase.REPLACING:
                    return None  # it was deleted meanwhile
                try:
                    return await self._attempt(kernel, config, reason, look=look)
                except (OSError, RuntimeError, DiskRefuses) as error:
                    # No descriptor, thread, memory or disk: the kernel lives, its turn comes later.
                    _log.warning("no takeover now", kernel_id=kernel.kernel_id, error=str(error))
            look = True  # a keeper may have come of it
            await asyncio.sleep(TRY_AGAIN)

    async def _attempt(
        self, kernel: Incarnation, config: KeeperConfig, reason: str, *, look: bool
    ) -> None:
        if look and (found := await self._engine.find(kernel.directory)) is not None:
            kernel.keeper, kernel.phase = found, Phase.ADOPTING
            self._recognise(kernel, found)
            return
        try:
            keeper, file = await launch_keeper(self._engine, config)
        except DiskRefuses:
            raise
        except LaunchFailed as error:
            self._endings.bring_down(kernel, f"{reason}; none could take over: {error}")
            await self._endings.bury_kernel(kernel)
            return
        self._watch(kernel, keeper, file)
        _log.info("kernel taken over", kernel_id=kernel.kernel_id, **keeper.handle)
        self._on_change()
