"""What an owner looks after without being asked: half-done work, silent keepers, old records.

Every few seconds, for each kernel that this proxy owns: finish what ``next_step`` says, have the
token acknowledged where it is not, ask silent keepers' launchers, bury the dead, and after
``node_grace`` of silence (counted only while we hold a lease, so that an outage of etcd kills
nobody's kernels) say that a kernel is dead. Old tombstones go too.
"""

from __future__ import annotations

import asyncio

import structlog

from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import (
    KernelEvent,
    KernelRecord,
    KernelState,
    Step,
    Tombstone,
    advance,
    bury,
    next_step,
)
from holdfast_proxy.errors import ProxyError, StaleToken
from holdfast_proxy.ownership.cache import Entry
from holdfast_proxy.ownership.calls.keepers import KeeperError, KeeperRefused
from holdfast_proxy.ownership.calls.launcher_client import LauncherError
from holdfast_proxy.ownership.kernels.endings import Endings
from holdfast_proxy.ownership.kernels.models import DEAD_SHOWN
from holdfast_proxy.ownership.kernels.starting import Starts
from holdfast_proxy.ownership.kernels.writes import WriteLost
from holdfast_proxy.ownership.parts import Parts

_log = structlog.get_logger(__name__)

#: Seconds between two rounds, and between two questions to one keeper.
_ROUND = 5.0
_PROBE = 15.0
#: Seconds that tombstones and records of dead kernels are kept.
_DAY = 86_400.0
_AT_ONCE = 16


class Sweep:
    """One owner's rounds."""

    def __init__(self, parts: Parts, starts: Starts, endings: Endings) -> None:
        self._parts = parts
        self._starts = starts
        self._endings = endings
        self._silent: dict[str, float] = {}
        self._probed: dict[str, float] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._round_at = parts.clock.now()
        parts.ownership.on_claimed(self._claimed)

    def __repr__(self) -> str:
        return f"<Sweep: {len(self._silent)} silent kernels>"

    def _claimed(self, kernel_id: str, token: Token, created: bool) -> None:
        if not created:
            self._parts.tasks.spawn(self._take_up(kernel_id, token), name=f"take up {kernel_id}")

    async def _take_up(self, kernel_id: str, token: Token) -> None:
        """The new owner's first call: have the token acknowledged, so that nobody older can act
        any more; then finish what is half done."""
        async with self._slots:
            await self.acknowledge(kernel_id, token)
            self.step(kernel_id, token)

    async def run(self) -> None:
        """Rounds, for ever."""
        while True:
            await asyncio.sleep(_ROUND)
            await self.round()

    async def round(self) -> None:
        """One look at everything that we own. Raises nothing on purpose."""
        parts = self._parts
        now = parts.clock.now()
        passed, self._round_at = now - self._round_at, now
        if not parts.member.holds or parts.member.held_up:
            return
        owned = parts.ownership.owned()
        for gone in self._silent.keys() - set(owned):
            del self._silent[gone]
        self._probed = {name: at for name, at in self._probed.items() if name in owned}
        await asyncio.gather(*(self._look(kernel_id, passed) for kernel_id in owned))
        await self._forget_old()

    async def _look(self, kernel_id: str, passed: float) -> None:
        async with self._slots:
            token = self._parts.ownership.token(kernel_id)
            if token is None:
                return
            try:
                known = self._parts.view.kernel(kernel_id)
                if known is not None and isinstance(known.record, Tombstone):
                    await self._parts.ownership.release(kernel_id, token)
                    return
                if not self._parts.ownership.effective(kernel_id):
                    await self.acknowledge(kernel_id, token)
                self.step(kernel_id, token)
                await self._tend(kernel_id, token, passed)
            except (ProxyError, WriteLost) as error:
                _log.info("to be looked at again", kernel=kernel_id, error=str(error))
            except Exception:
                # One kernel's trouble must not end the rounds for all others.
                _log.exception("a kernel could not be looked after", kernel=kernel_id)

    def step(self, kernel_id: str, token: Token) -> None:
        """Begin what the record says is half done."""
        entry = self._parts.cached(kernel_id)
        match next_step(None if entry is None else entry.record):
            case Step.LAUNCH | Step.BEGIN:
                self._starts.resume(kernel_id, token)
            case Step.ERASE:
                self._endings.resume(kernel_id, token)
            case _:
                pass

    async def acknowledge(self, kernel_id: str, token: Token) -> None:
        """Show the token to keeper and launcher; both must take it for the term to be effective."""
        parts = self._parts
        entry = parts.cached(kernel_id)
        if entry is None:
            return
        try:
            results = await asyncio.gather(
                self._fence_keeper(kernel_id, entry, token),
                self._fence_launcher(kernel_id, entry, token),
            )
        except StaleToken:
            parts.ownership.overtaken(kernel_id, token)
            return
        if all(results):
            parts.ownership.acknowledged(kernel_id, token)

    async def _fence_keeper(self, kernel_id: str, entry: Entry[KernelRecord], token: Token) -> bool:
        try:
            endpoint = self._parts.endpoints.of(kernel_id, entry)
            if endpoint is not None:
                await self._parts.keepers.fence(endpoint, token)
        except StaleToken:
            raise
        except (KeeperError, ProxyError):
            return False
        return True

    async def _fence_launcher(
        self, kernel_id: str, entry: Entry[KernelRecord], token: Token
    ) -> bool:
        try:
            target = self._parts.launchers.target(entry.record.launcher_id)
            await self._parts.launcher_client.fence(target, kernel_id, token)
        except StaleToken:
            raise
        except (LauncherError, ProxyError):
            return False
        return True

    # --- one kernel ---

    async def _tend(self, kernel_id: str, token: Token, passed: float) -> None:
        entry = self._parts.cached(kernel_id)
        if entry is None:
            return
        age = self._parts.clock.age(entry.record.changed)
        match entry.record.state:
            case KernelState.RUNNING:
                await self._endings.settle_death(kernel_id, token)
                await self._probe(kernel_id, entry, token)
                await self._count_silence(kernel_id, token, passed)
            case KernelState.STARTING | KernelState.DELETING:
                await self._count_absence(kernel_id, entry, token, passed)
            case KernelState.DEAD if not entry.record.buried and age > DEAD_SHOWN:
                await self._endings.bury_dead(kernel_id, token)
            case KernelState.DEAD if entry.record.buried and age > _DAY:
                await self._expire(kernel_id, entry, token)
            case _:
                pass

    async def _probe(self, kernel_id: str, entry: Entry[KernelRecord], token: Token) -> None:
        now = self._parts.clock.now()
        asked_at = self._probed.get(kernel_id)
        if asked_at is not None and now - asked_at < _PROBE and kernel_id not in self._silent:
            return
        self._probed[kernel_id] = now
        endpoint = self._parts.endpoints.of(kernel_id, entry)
        if endpoint is None:
            return
        try:
            state = await self._parts.keepers.state(endpoint)
        except KeeperError as error:
            answered = isinstance(error, KeeperRefused)
            found = await self._endings.seek(kernel_id, entry, token)
            if not found and not answered:
                self._silent.setdefault(kernel_id, 0.0)
            return
        self._silent.pop(kernel_id, None)
        if state.execution_state == "dead" and state.nonce == entry.record.nonce:
            await self._endings.die(kernel_id, entry, token, state.reason or "the kernel died")

    async def _count_silence(self, kernel_id: str, token: Token, passed: float) -> None:
        """Seconds without keeper *and* without its launcher's word that it lives."""
        if kernel_id not in self._silent:
            return
        entry = self._parts.cached(kernel_id)
        if entry is None or entry.record.state is not KernelState.RUNNING:
            return
        if self._parts.reports.fresh(kernel_id, entry.record):
            self._silent[kernel_id] = 0.0
            return
        self._silent[kernel_id] += min(passed, 2 * _ROUND)
        if self._silent[kernel_id] >= self._parts.node_grace:
            reason = f"its node could not be reached for {self._parts.node_grace:.0f} s"
            await self._endings.die(kernel_id, entry, token, reason)

    async def _count_absence(
        self, kernel_id: str, entry: Entry[KernelRecord], token: Token, passed: float
    ) -> None:
        """A launcher that is gone for longer than the grace cannot confirm a start or an end."""
        record = entry.record
        if record.launcher_id in self._parts.view.launchers:
            self._silent.pop(kernel_id, None)
            return
        self._silent[kernel_id] = self._silent.get(kernel_id, 0.0) + min(passed, 2 * _ROUND)
        if self._silent[kernel_id] < self._parts.node_grace:
            return
        if record.state is KernelState.DELETING:
            # The tombstone names its nonce, so that a keeper that comes back is ended then.
            tombstone = bury(record, deleted_at=self._parts.clock.stamp())
            await self._parts.writer.bury(kernel_id, entry, tombstone, token=token)
            self._parts.ownership.overtaken(kernel_id, token)
        else:
            reason = f"launcher {record.launcher_id!r} was gone while it started"
            await self._endings.die(kernel_id, entry, token, reason)

    async def _expire(self, kernel_id: str, entry: Entry[KernelRecord], token: Token) -> None:
        stamp = self._parts.clock.stamp()
        deleting = advance(entry.record, KernelEvent.DELETED, changed=stamp)
        after = await self._parts.writer.put(kernel_id, entry, deleting, token=token)
        tombstone = bury(deleting, deleted_at=stamp)
        await self._parts.writer.bury(kernel_id, after, tombstone, token=token)
        self._parts.ownership.overtaken(kernel_id, token)

    async def _forget_old(self) -> None:
        """Tombstones of yesterday, by the first proxy in order: one is enough."""
        parts = self._parts
        if min(parts.view.proxies, default="") != parts.member.proxy_id:
            return
        for kernel_id, entry in list(parts.view.kernels.items()):
            record = entry.record
            if isinstance(record, Tombstone) and parts.clock.age(record.deleted_at) > _DAY:
                try:
                    await parts.writer.forget(kernel_id, entry.revision)
                except ProxyError:
                    return
