"""The agent: starts, finds, ends and reports keepers, each kernel under its own lock.

It knows fences, the engine and the incarnations; it must not know HTTP servers or proxies.

Invariants:

- *Fenced.* Nothing of a fenced call takes effect before its token is acknowledged on disk, and
  the token is compared again under the kernel's lock, after whatever the call had to wait for.
- *At most one.* A keeper is launched only under the kernel's lock, when no incarnation of the
  kernel id lives and everything of the last one is proven gone.
- *Nothing unwatched.* When a keeper ends and nobody asked for that, another one takes its kernel
  over (``takeover``); whatever is not taken over is killed, whoever asked for what meanwhile.
- *Dead on evidence.* An incarnation turns DEAD only by its engine's word (``Keeper.alive``).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from holdfast_launcher.agent.adoption import recognise, scan
from holdfast_launcher.agent.background import Background, Locks
from holdfast_launcher.agent.endings import Endings
from holdfast_launcher.agent.incarnation import Answer, Incarnation, Phase, decide_put
from holdfast_launcher.agent.keeper_client import KeeperClient
from holdfast_launcher.agent.last_words import LastWords
from holdfast_launcher.agent.launching import LaunchPlan, StartOrder, check_may_start, plan_launch
from holdfast_launcher.agent.succession import launch_keeper
from holdfast_launcher.agent.takeover import TRY_AGAIN, Takeover
from holdfast_launcher.config import LauncherConfig
from holdfast_launcher.engines.contract import Engine, Keeper, LaunchFailed
from holdfast_launcher.errors import (
    NonceMismatch,
    NoSuchKernel,
    NotReady,
    StartFailed,
)
from holdfast_launcher.keeper.log.quota import QUOTA_FILE
from holdfast_launcher.kernelspecs import KernelspecCatalog
from holdfast_launcher.state.fences import FenceBook
from holdfast_launcher.state.keeper_files import KeeperFile, read_keeper_file
from holdfast_launcher.state.statefiles import (
    make_private_directory,
    remove_directory,
    write_private,
)
from holdfast_protocol.fencing import Token

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
        self._clock = clock
        make_private_directory(config.kernels)
        make_private_directory(config.log_quota)
        try:
            # Read by keepers that live already, too: a new setting is theirs at once.
            write_private(config.log_quota / QUOTA_FILE, b"%d" % config.log_node_bytes)
        except OSError as error:  # a full disk: that of the last run holds, and kernels wait
            _log.error("log quota not written", error=str(error))
        self._fences = FenceBook(config.state / "fences")
        self._client = KeeperClient()
        self._kernels: dict[str, Incarnation] = {}
        self._locks = Locks()
        self._background = Background()
        self._endings = Endings(
            engine=engine,
            client=self._client,
            fences=self._fences,
            kernels=self._kernels,
            words=LastWords(config.kernels),
            on_change=on_change,
        )
        self._takeover = Takeover(
            engine=engine,
            endings=self._endings,
            background=self._background,
            locks=self._locks,
            watch=self._watch,
            recognise=self._recognise,
            on_change=on_change,
        )

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
                await self._endings.end(kernel, fence)
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
            await self._endings.remove(old)
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
            self._endings.bring_down(kernel, str(error))
            raise StartFailed(str(error)) from error
        except asyncio.CancelledError:
            del self._kernels[kernel_id]  # we are stopping; the next launcher finds it on disk
            keeperless = read_keeper_file(plan.directory) is None
            _log.warning("start interrupted", kernel_id=kernel_id, keeperless=keeperless)
            raise
        except Exception as error:
            # No descriptor, thread or memory: whatever it was, nothing is proven either way.
            _log.warning("start broke off", kernel_id=kernel_id, error=repr(error))
            kernel.reason = "a start that broke off is being undone"
            self._background.spawn(self._undo(kernel))
            raise NotReady(f"this launcher can start no keeper now: {error}") from error
        self._watch(kernel, keeper, file)
        _log.info("keeper started", kernel_id=kernel_id, **keeper.handle)
        return kernel

    async def _undo(self, kernel: Incarnation) -> None:
        while True:
            async with self._locks.of(kernel.kernel_id):
                if await self._endings.undo(kernel):
                    return
            await asyncio.sleep(TRY_AGAIN)

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

    def _keeper_gone(self, kernel: Incarnation) -> None:
        """The engine's evidence, at once: another keeper, or report and leave no kernel behind."""
        if kernel.ending:  # as asked; whoever asked cleans up after it
            kernel.phase, kernel.reason = Phase.DEAD, "it is being deleted"
            return
        keeper_reason = (kernel.keeper and kernel.keeper.reason) or "the keeper is gone"
        if self._takeover.begin(kernel, keeper_reason):
            return
        said = kernel.activity.read().reason
        self._endings.bring_down(kernel, f"{said}; {keeper_reason}" if said else keeper_reason)
        self._background.spawn(self._endings.bury_kernel(kernel))

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
            elif not self._takeover.begin(kernel, kernel.reason or "", settle=_SECOND_LOOK):
                self._background.spawn(self._endings.bury_kernel(kernel))
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
