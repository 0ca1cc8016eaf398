"""How incarnations end: asked for, by themselves, or because a start broke off half way.

It knows the engine's evidence, the keeper client and the agent's table of incarnations; it must
not take locks or decide who may ask: the agent does, and calls in here under the kernel's lock.

Invariant: an incarnation leaves the table only when nothing of it runs, keeper and kernel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from holdfast_launcher.agent.incarnation import Incarnation, Phase
from holdfast_launcher.agent.keeper_client import KeeperClient, KeeperSilent, KeeperStranger
from holdfast_launcher.agent.last_words import LastWords
from holdfast_launcher.engines.contract import Engine
from holdfast_launcher.errors import NotReady, StaleToken
from holdfast_launcher.state.fences import FenceBook
from holdfast_launcher.state.keeper_files import EVIDENCE_FILE
from holdfast_launcher.state.statefiles import remove_directory, write_json
from holdfast_protocol.fencing import Token

#: How long an ending that was asked for politely may take before it is forced, in seconds.
_POLITE = 3.0
#: How long a forced one may take before the answer is "not yet".
_FORCED = 5.0

_log = structlog.get_logger(__name__)


class Endings:
    """``kernels`` is the agent's table; ``on_change`` tells the proxies of a death at once."""

    def __init__(
        self,
        *,
        engine: Engine,
        client: KeeperClient,
        fences: FenceBook,
        kernels: dict[str, Incarnation],
        words: LastWords,
        on_change: Callable[[], None],
    ) -> None:
        self._words = words
        self._engine = engine
        self._client = client
        self._fences = fences
        self._kernels = kernels
        self._on_change = on_change

    def __repr__(self) -> str:
        return f"Endings({len(self._kernels)} kernels)"

    async def end(self, kernel: Incarnation, fence: Token) -> None:
        """End keeper and kernel and forget them. Raises StaleToken, NotReady."""
        kernel.ending = True
        # Before it is ended: of one that died, somebody will ask why.
        died = not kernel.alive or kernel.activity.read().execution_state == "dead"
        try:
            if kernel.keeper is None and kernel.phase is Phase.STARTING:
                await self._end_stray(kernel)
            elif kernel.keeper is not None and kernel.alive:
                if await self._ask(kernel, fence):
                    await kernel.keeper.wait_gone(timeout=_POLITE)
                kernel.keeper.kill()
                if not await kernel.keeper.wait_gone(timeout=_FORCED):
                    raise NotReady("the keeper does not end", reason="not_gone")
            await self.remove(kernel, keep_words=died)
        finally:
            kernel.ending = False

    async def remove(self, kernel: Incarnation, *, keep_words: bool = False) -> None:
        """Prove that nothing of it runs, then forget it and its files. Raises NotReady."""
        if not await self._engine.end_kernel(kernel.directory, mark=kernel.mark, timeout=_FORCED):
            raise NotReady("processes of the kernel do not end", reason="not_gone")
        if kernel.keeper is not None:
            kernel.keeper.release()
        kernel.phase = Phase.DEAD
        if keep_words:
            await asyncio.to_thread(self._words.keep, kernel.directory)
        await asyncio.to_thread(remove_directory, kernel.directory)
        if self._kernels.get(kernel.kernel_id) is kernel:
            del self._kernels[kernel.kernel_id]

    async def undo(self, kernel: Incarnation) -> bool:
        """One try to make a start that broke off as if it had never been; False: try again.

        Whether a keeper came of it nobody has said, so the engine is asked, and what it finds is
        ended. That may need what the start lacked (descriptors, threads, memory).
        """
        if kernel.phase is not Phase.STARTING or kernel.keeper is not None:
            return True  # a DELETE was here
        try:
            await self._end_stray(kernel)
            await self.remove(kernel)
        except (OSError, RuntimeError, NotReady) as error:
            _log.warning("start not undone yet", kernel_id=kernel.kernel_id, error=str(error))
            return False
        return True

    def bring_down(self, kernel: Incarnation, reason: str) -> None:
        """It is dead, on evidence: keep that over our own restart, and say it."""
        kernel.phase = Phase.DEAD
        kernel.reason = reason
        _log.warning("keeper gone", kernel_id=kernel.kernel_id, reason=reason)
        evidence = {"kernel_id": kernel.kernel_id, "nonce": kernel.nonce, "reason": reason}
        try:
            write_json(kernel.directory / EVIDENCE_FILE, evidence)
        except FileNotFoundError:  # deleted at this moment
            pass
        except OSError as error:  # a full disk; who calls has a kernel to end all the same
            _log.error("evidence not kept", kernel_id=kernel.kernel_id, error=str(error))
        self._on_change()

    async def bury_kernel(self, kernel: Incarnation) -> None:
        """Its keeper is gone and none follows: leave no kernel behind."""
        if not await self._engine.end_kernel(kernel.directory, mark=kernel.mark, timeout=_FORCED):
            _log.error("kernel outlives its keeper", kernel_id=kernel.kernel_id)

    async def _end_stray(self, kernel: Incarnation) -> None:
        found = await self._engine.find(kernel.directory)
        if found is None:
            return
        found.kill()
        try:
            if not await found.wait_gone(timeout=_FORCED):
                raise NotReady("the keeper does not end", reason="not_gone")
        finally:
            found.release()

    async def _ask(self, kernel: Incarnation, fence: Token) -> bool:
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
