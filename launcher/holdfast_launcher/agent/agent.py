"""The agent: starts, finds, ends and reports keepers, each kernel under its own lock.

It knows fences, the engine and the incarnations; it must not know HTTP servers or proxies.

Invariants:

- *Fenced.* Nothing of a fenced call takes effect before its token is acknowledged on disk, and
  the token is compared again under the kernel's lock, after whatever the call had to wait for.
- *At most one.* A keeper is launched only under the kernel's lock, when no incarnation of the
  kernel id lives and everything of the last one is proven gone.
- *Nothing unwatched.* When a keeper ends and nobody asked for that, another one takes its kernel
  over (``succession``); whatever is not taken over is killed, whoever asked for what meanwhile.
- *Dead on evidence.* An incarnation turns DEAD only by its engine's word (``Keeper.alive``).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from holdfast_launcher.agent.adoption import recognise, scan
from holdfast_launcher.agent.background import Background, Locks
from holdfast_launcher.agent.incarnation import Answer, Incarnation, Phase, decide_put
from holdfast_launcher.agent.keeper_client import KeeperClient, KeeperSilent, KeeperStranger
from holdfast_launcher.agent.launching import LaunchPlan, StartOrder, check_may_start, plan_launch
from holdfast_launcher.agent.succession import find_successor, launch_keeper
from holdfast_launcher.config import LauncherConfig
from holdfast_launcher.engines.contract import Engine, Keeper, LaunchFailed
from holdfast_launcher.errors import (
    NonceMismatch,
    NoSuchKernel,
    NotReady,
    StaleToken,
    StartFailed,
)
from holdfast_launcher.fences import FenceBook
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.keeper_files import EVIDENCE_FILE, KeeperFile, read_keeper_file
from holdfast_launcher.kernelspecs import KernelspecCatalog
from holdfast_launcher.statefiles import make_private_directory, remove_directory, write_json
from holdfast_protocol.fencing import Token

#: How long an ending that was asked for politely may take before it is forced, in seconds.
_POLITE = 3.0
#: How long a forced one may take before the answer is "not yet".
_FORCED = 5.0
#: When directories in which no keeper had begun at our start are looked at again.
_SECOND_LOOK = 3.0
#: Fences of deleted kernels are kept this long: longer than any proxy sleeps.
_BURIED_SECONDS = 7 * 24 * 3600.0

_log = structlog.get_logger(__name__)


class Agent:
    """One per launcher. ``on_change`` is called when a keeper ended: tell the proxies now.

    ``base_environment`` is what every kernel inherits; ``clock`` answers seconds of the epoch.
    """

    def __init__(
        self,
        *,
        config: LauncherConfig,
        engine: Engine,
        catalog: KernelspecCatalog,
        base_environment: Mapping[str, str],
        advertise_host: str,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._engine = engine
        self._catalog = catalog
        self._base_environment = base_environment
        self._advertise_host = advertise_host
        self._on_change = on_change
        self._clock = clock
        make_private_directory(config.kernels)
        self._fences = FenceBook(config.state / "fences")
        self._client = KeeperClient()
        self._kernels: dict[str, Incarnation] = {}
        self._locks = Locks()
        self._background = Background()

    def __repr__(self) -> str:
        alive = sum(1 for kernel in self._kernels.values() if kernel.alive)
        return f"Agent(kernels={len(self._kernels)}, alive={alive})"

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find what is on disk, living or dead, so that no answer is a wrong 404."""
        await self._engine.start()
        self._fences.forget(before=self._clock() - _BURIED_SECONDS)
        await self._take_in()
        self._background.spawn(self._look_again())

    async def close(self) -> None:
        """Stop watching. Keepers and kernels stay (DESIGN promise 5)."""
        await self._background.close()
        for kernel in self._kernels.values():
            if kernel.keeper is not None:
                kernel.keeper.release()
        await self._client.close()
        await self._engine.close()

    # -- questions ----------------------------------------------------------------------------

    def get(self, kernel_id: str) -> dict[str, Any]:
        """The handle, or evidence. Raises NoSuchKernel for what was never started here, NotReady
        while its keeper lives and cannot be spoken to."""
        kernel = self._kernels.get(kernel_id)
        if kernel is not None:
            if not kernel.presentable:
                raise NotReady(kernel.reason or "its keeper is coming up")
            return kernel.handle(self._advertise_host)
        page = self._fences.page(kernel_id)
        if page is not None and page.buried is not None:
            nonce = page.buried or None
            reason = "it was deleted"
            return {"kernel_id": kernel_id, "nonce": nonce, "alive": False, "reason": reason}
        raise NoSuchKernel(f"this launcher never started kernel {kernel_id}")

    def handles(self) -> list[dict[str, Any]]:
        """All that can be named; one that is coming up is in heartbeats, not here."""
        kernels = [kernel for kernel in self._kernels.values() if kernel.presentable]
        return [kernel.handle(self._advertise_host) for kernel in kernels]

    def beat(self) -> dict[str, Any]:
        """Every kernel's part of a heartbeat."""
        return {kernel_id: kernel.beat() for kernel_id, kernel in self._kernels.items()}

    # -- fenced calls -------------------------------------------------------------------------

    async def acknowledge(self, kernel_id: str, fence: Token) -> Token:
        """Make ``fence`` the highest, on disk, and answer it. Raises StaleToken.

        Takes no lock: a new owner is not made to wait for what the old one had begun.
        """
        await asyncio.to_thread(self._fences.acknowledge, kernel_id, fence)
        return fence

    async def put(self, kernel_id: str, fence: Token, order: StartOrder) -> dict[str, Any]:
        """Start a keeper, or find the one with this nonce; its handle.

        Raises StaleToken, NonceMismatch, UnknownKernelspec, Refused, NotReady, StartFailed.
        """
        await self.acknowledge(kernel_id, fence)
        async with self._locks.of(kernel_id):
            self._fences.check(kernel_id, fence)
            await self._present(kernel_id)
            kernel = await self._settled(kernel_id, order.nonce)
            if kernel is None:
                kernel = await self._start(kernel_id, order)
            # Somebody else may have become owner while the keeper came up; it is his now.
            self._fences.check(kernel_id, fence)
            return kernel.handle(self._advertise_host)

    async def delete(self, kernel_id: str, fence: Token) -> dict[str, Any]:
        """End keeper, kernel and everything of theirs; answers when that is proven.

        Raises StaleToken; NotReady when something does not end: ask again.
        """
        await self.acknowledge(kernel_id, fence)
        async with self._locks.of(kernel_id):
            self._fences.check(kernel_id, fence)
            kernel = await self._present(kernel_id)
            if kernel is not None:
                await self._end(kernel, fence)
            # Last, so that a launcher that is killed in between finds the rest of the work.
            nonce = None if kernel is None else kernel.nonce
            now = self._clock()
            await asyncio.to_thread(self._fences.bury, kernel_id, fence, nonce=nonce, now=now)
            return {"gone": True}

    # -- starting -----------------------------------------------------------------------------

    async def _settled(self, kernel_id: str, nonce: str) -> Incarnation | None:
        """What a PUT finds, waiting for one that is coming up; None: start one."""
        page = self._fences.page(kernel_id)
        buried = None if page is None else page.buried
        deadline = asyncio.get_running_loop().time() + self._config.keeper_start_timeout
        while True:
            kernel = self._kernels.get(kernel_id)
            answer = decide_put(kernel, nonce, buried=buried)
            if answer is Answer.START:
                return None
            if answer is Answer.HANDLE:
                return kernel
            if answer is Answer.CONFLICT:
                raise NonceMismatch("another incarnation of this kernel lives; end it first")
            if answer is Answer.BURIED:
                raise NonceMismatch("this incarnation was deleted", reason="deleted")
            late = asyncio.get_running_loop().time() > deadline
            if answer is Answer.NOT_NOW or late or kernel is None or kernel.keeper is None:
                raise NotReady((kernel and kernel.reason) or "its keeper is still coming up")
            # Only what a launcher before us had begun can be coming up here: we hold the lock.
            await kernel.keeper.wait_gone(timeout=0.05)

    async def _start(self, kernel_id: str, order: StartOrder) -> Incarnation:
        plan = await self._plan(kernel_id, order)
        old = self._kernels.get(kernel_id)
        if old is not None:
            await self._remove(old)
        await asyncio.to_thread(make_private_directory, plan.directory)
        await asyncio.to_thread(self._fences.unbury, kernel_id)
        kernel = Incarnation(
            kernel_id=kernel_id,
            nonce=order.nonce,
            directory=plan.directory,
            spec=plan.keeper.spec,
            user=order.user,
        )
        self._kernels[kernel_id] = kernel
        try:
            keeper, file = await launch_keeper(self._engine, plan.keeper)
        except LaunchFailed as error:
            self._bring_down(kernel, str(error))
            raise StartFailed(str(error)) from error
        except asyncio.CancelledError:
            del self._kernels[kernel_id]  # we are stopping; the next launcher finds it on disk
            keeperless = read_keeper_file(plan.directory) is None
            _log.warning("start interrupted", kernel_id=kernel_id, keeperless=keeperless)
            raise
        self._watch(kernel, keeper, file)
        _log.info("keeper started", kernel_id=kernel_id, **keeper.handle)
        return kernel

    def _watch(self, kernel: Incarnation, keeper: Keeper, file: KeeperFile) -> None:
        kernel.keeper, kernel.phase, kernel.reason = keeper, Phase.ALIVE, None
        kernel.take_file(file)
        keeper.on_gone(lambda: self._keeper_gone(kernel))

    async def _plan(self, kernel_id: str, order: StartOrder) -> LaunchPlan:
        """Everything that can be refused is refused here, before anything is done."""
        alive = sum(1 for kernel in self._kernels.values() if kernel.alive)
        check_may_start(self._config, alive=alive)
        catalog = await self._catalog.read()
        plan = await asyncio.to_thread(
            plan_launch,
            kernel_id=kernel_id,
            order=order,
            config=self._config,
            catalog=catalog,
            kernelspec_dirs=self._catalog.directories(),
            base_environment=self._base_environment,
            credential=secrets.token_urlsafe(32),
        )
        if plan.refused:
            _log.warning("variables refused", kernel_id=kernel_id, names=list(plan.refused))
        return plan

    # -- ending -------------------------------------------------------------------------------

    async def _end(self, kernel: Incarnation, fence: Token) -> None:
        keeper = kernel.keeper
        kernel.ending = True
        try:
            if keeper is not None and kernel.alive:
                if await self._ask_to_end(kernel, fence):
                    await keeper.wait_gone(timeout=_POLITE)
                keeper.kill()
                if not await keeper.wait_gone(timeout=_FORCED):
                    raise NotReady("the keeper does not end", reason="not_gone")
            await self._remove(kernel)
        finally:
            kernel.ending = False

    async def _ask_to_end(self, kernel: Incarnation, fence: Token) -> bool:
        if kernel.file is None or kernel.phase is Phase.DISPUTED:
            return False
        try:
            return await self._client.shutdown(kernel.file, fence)
        except StaleToken as error:
            # The keeper knows an owner that we have not heard of: the caller's time is over.
            await asyncio.to_thread(self._fences.acknowledge, kernel.kernel_id, error.highest)
            raise
        except (KeeperSilent, KeeperStranger) as error:
            _log.warning("keeper silent, killing it", kernel_id=kernel.kernel_id, error=str(error))
            return False

    async def _remove(self, kernel: Incarnation) -> None:
        """Prove that nothing of it runs, then forget it and its files. Raises NotReady."""
        if not await self._engine.end_kernel(kernel.directory, mark=kernel.mark, timeout=_FORCED):
            raise NotReady("processes of the kernel do not end", reason="not_gone")
        if kernel.keeper is not None:
            kernel.keeper.release()
        kernel.phase = Phase.DEAD
        await asyncio.to_thread(remove_directory, kernel.directory)
        if self._kernels.get(kernel.kernel_id) is kernel:
            del self._kernels[kernel.kernel_id]

    def _keeper_gone(self, kernel: Incarnation) -> None:
        """The engine's evidence, at once: another keeper, or report and leave no kernel behind."""
        if kernel.ending:  # as asked; whoever asked cleans up after it
            kernel.phase, kernel.reason = Phase.DEAD, "it is being deleted"
            return
        keeper_reason = (kernel.keeper and kernel.keeper.reason) or "the keeper is gone"
        if self._succeed(kernel, keeper_reason):
            return
        said = kernel.activity.read().reason
        self._bring_down(kernel, f"{said}; {keeper_reason}" if said else keeper_reason)
        self._background.spawn(self._bury_kernel(kernel))

    def _bring_down(self, kernel: Incarnation, reason: str) -> None:
        kernel.phase = Phase.DEAD
        kernel.reason = reason
        _log.warning("keeper gone", kernel_id=kernel.kernel_id, reason=reason)
        evidence = {"kernel_id": kernel.kernel_id, "nonce": kernel.nonce, "reason": reason}
        with contextlib.suppress(FileNotFoundError):  # deleted at this moment
            write_json(kernel.directory / EVIDENCE_FILE, evidence)
        self._on_change()

    async def _bury_kernel(self, kernel: Incarnation) -> None:
        if not await self._engine.end_kernel(kernel.directory, mark=kernel.mark, timeout=_FORCED):
            _log.error("kernel outlives its keeper", kernel_id=kernel.kernel_id)

    # -- taking over ----------------------------------------------------------------------------

    def _succeed(self, kernel: Incarnation, reason: str, *, settle: float = 0.0) -> bool:
        """Begin to launch a keeper that takes the kernel over; False: the kernel is to be ended."""
        config = find_successor(kernel.directory, nonce=kernel.nonce)
        if config is None or not kernel.takeovers.spend(asyncio.get_running_loop().time()):
            return False
        kernel.lose_keeper(f"{reason}; another one is taking over")
        _log.warning("keeper gone, kernel lives", kernel_id=kernel.kernel_id, reason=reason)
        self._background.spawn(self._take_over(kernel, config, reason, settle=settle))
        return True

    async def _take_over(
        self, kernel: Incarnation, config: KeeperConfig, reason: str, *, settle: float
    ) -> None:
        # What a launcher before us had forked in its last moment appears within ``settle``.
        await asyncio.sleep(settle)
        async with self._locks.of(kernel.kernel_id):
            if kernel.phase is not Phase.REPLACING:
                return  # it was deleted meanwhile
            if settle and (found := await self._engine.find(kernel.directory)) is not None:
                kernel.keeper, kernel.phase = found, Phase.ADOPTING
                self._recognise(kernel, found)
                return
            try:
                keeper, file = await launch_keeper(self._engine, config)
            except LaunchFailed as error:
                self._bring_down(kernel, f"{reason}; none could take over: {error}")
                await self._bury_kernel(kernel)
                return
            self._watch(kernel, keeper, file)
        _log.info("kernel taken over", kernel_id=kernel.kernel_id, **keeper.handle)
        self._on_change()

    # -- finding again ------------------------------------------------------------------------

    async def _take_in(self) -> tuple[Path, ...]:
        known = frozenset(self._kernels)
        result = await scan(self._config.kernels, self._engine, known=known)
        for kernel in result.found:
            if self._kernels.setdefault(kernel.kernel_id, kernel) is not kernel:
                if kernel.keeper is not None:  # a start came while the disk was read
                    kernel.keeper.release()
            elif kernel.keeper is not None:
                self._recognise(kernel, kernel.keeper)
            elif not self._succeed(kernel, kernel.reason or "", settle=_SECOND_LOOK):
                self._background.spawn(self._bury_kernel(kernel))
        return result.empty

    def _recognise(self, kernel: Incarnation, keeper: Keeper) -> None:
        keeper.on_gone(lambda: self._keeper_gone(kernel))
        timeout = self._config.keeper_start_timeout
        self._background.spawn(recognise(kernel, self._client, start_timeout=timeout))

    async def _present(self, kernel_id: str) -> Incarnation | None:
        """The incarnation, also one whose directory our own start saw too early."""
        directory = self._config.kernels / kernel_id
        if kernel_id not in self._kernels and directory.exists():
            await self._take_in()
            if kernel_id not in self._kernels:
                await asyncio.to_thread(remove_directory, directory)
        return self._kernels.get(kernel_id)

    async def _look_again(self) -> None:
        """A keeper whose fork was under way when the last launcher died appears a moment later."""
        await asyncio.sleep(_SECOND_LOOK)
        for directory in await self._take_in():
            async with self._locks.of(directory.name):
                if directory.name not in self._kernels:
                    _log.info("removing what never began", kernel_id=directory.name)
                    await asyncio.to_thread(remove_directory, directory)
