"""How kernels end: evidence of death, deletion, burial; and looking for a keeper that is silent.

Dead is said on evidence only: the keeper, launcher or engine says that the process is gone, or
nobody could reach it for ``node_grace``. A deletion is ``deleting`` → keeper and launcher confirm
→ tombstone, and any owner resumes it. Every effect carries the token and is guarded right before
it is sent.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from holdfast_protocol.errors import InvalidState, RecordError
from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import (
    KernelEvent,
    KernelRecord,
    KernelState,
    advance,
    bury,
)
from holdfast_protocol.records import KernelReport
from holdfast_proxy.cluster import LifecycleCall
from holdfast_proxy.errors import NotFound, ProxyError, StaleToken, Unavailable
from holdfast_proxy.ownership.background import SingleFlight
from holdfast_proxy.ownership.cache import Entry
from holdfast_proxy.ownership.calls.endpoints import check_endpoint
from holdfast_proxy.ownership.calls.keepers import KeeperError
from holdfast_proxy.ownership.calls.launcher_client import Handle, LauncherError
from holdfast_proxy.ownership.kernels.writes import WriteLost
from holdfast_proxy.ownership.parts import Parts
from holdfast_proxy.store.errors import StoreError

_log = structlog.get_logger(__name__)

#: Seconds for a kernel to end when asked, before its launcher ends it.
_ASKED = 8.0
_ENDED = 20.0


class Endings:
    """Ends kernels, and says so."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._flights = SingleFlight(parts.tasks)
        parts.reports.on_report(self._reported)

    def __repr__(self) -> str:
        return f"<Endings {self._flights!r}>"

    # --- death ---

    async def die(
        self, kernel_id: str, entry: Entry[KernelRecord], token: Token, reason: str
    ) -> None:
        """Record the death, on evidence that the caller has. Raises WriteLost, Unavailable."""
        dead = advance(
            entry.record, KernelEvent.DIED, changed=self._parts.clock.stamp(), reason=reason
        )
        await self._parts.writer.put(kernel_id, entry, dead, token=token)
        _log.warning("kernel died", kernel=kernel_id, reason=reason)
        kind = "start failed" if entry.record.state is KernelState.STARTING else "died"
        launcher_id = entry.record.launcher_id
        self._parts.timeline.note(kind, kernel_id, reason, launcher_id=launcher_id)

    def _reported(self, kernel_id: str, report: KernelReport) -> None:
        entry = self._parts.cached(kernel_id)
        if entry is None or report.nonce != entry.record.nonce:
            return
        token = self._parts.ownership.token(kernel_id)
        if token is not None and self._parts.reports.death(kernel_id, entry.record) is not None:
            self._flights.begin(f"death {kernel_id}", lambda: self.settle_death(kernel_id, token))

    async def settle_death(self, kernel_id: str, token: Token) -> None:
        """Write down a death that the launcher reported, if the record does not have it."""
        entry = self._parts.cached(kernel_id)
        if entry is None or entry.record.state not in (KernelState.STARTING, KernelState.RUNNING):
            return
        reason = self._parts.reports.death(kernel_id, entry.record)
        # While starting, "not there" may be said by a launcher that our PUT has not reached.
        if reason is None or entry.record.endpoint is None:
            return
        try:
            await self.die(kernel_id, entry, token, reason)
        except WriteLost:
            await self.recheck(kernel_id, token, stale=False)

    async def recheck(self, kernel_id: str, token: Token, *, stale: bool) -> None:
        """A write was lost, or a token refused (``stale``): learn what is true now."""
        parts = self._parts
        try:
            seen = await parts.view.read_owner(kernel_id)
        except (StoreError, RecordError) as error:
            raise Unavailable(f"etcd does not say who owns the kernel: {error}") from error
        if stale or seen is None or seen.revision != token.revision:
            parts.ownership.overtaken(kernel_id, token)

    # --- a silent keeper ---

    async def seek(self, kernel_id: str, entry: Entry[KernelRecord], token: Token | None) -> bool:
        """Ask the launcher about a keeper that does not answer; True when that told us something.

        A death goes to the reports (and from there into the record, if we own it); a newer
        keeper's endpoint into the record if ``token`` is given, else into our memory only.
        """
        parts, record = self._parts, entry.record
        try:
            target = parts.launchers.target(record.launcher_id)
            handle = await parts.launcher_client.find(target, kernel_id)
            if handle is None:
                return False
            if handle.alive:
                check_endpoint(target.url, handle)
        except (LauncherError, Unavailable) as error:
            _log.info("no evidence to be had", kernel=kernel_id, error=str(error))
            return False
        if not handle.alive or handle.nonce != record.nonce:
            reason = handle.reason or "its process is gone"
            report = KernelReport(nonce=record.nonce, alive=False, reason=reason)
            parts.reports.note(kernel_id, record, report)
            if token is not None:
                await self.settle_death(kernel_id, token)
            return True
        if record.endpoint is not None and _same_keeper(record, handle):
            return False
        if token is None or not parts.member.holds:
            parts.endpoints.overrule(kernel_id, entry.revision, handle)
            return True
        await self._moved(kernel_id, entry, token, handle)
        return True

    async def _moved(
        self, kernel_id: str, entry: Entry[KernelRecord], token: Token, handle: Handle
    ) -> None:
        """Another keeper has adopted the kernel: its endpoint into the record."""
        parts = self._parts
        record = parts.launched(kernel_id, entry.record, handle)
        try:
            await parts.writer.put(kernel_id, entry, record, token=token)
            parts.timeline.note("keeper replaced", kernel_id)
        except WriteLost:
            await self.recheck(kernel_id, token, stale=False)

    # --- deletion ---

    async def delete(self, kernel_id: str, token: Token, call: LifecycleCall) -> None:
        """End the kernel for good. Raises NotFound when it is deleted already, ProxyError."""
        parts = self._parts
        guard = parts.leased_guard(kernel_id, token, call)
        for _ in range(4):
            guard()
            entry = parts.cached(kernel_id)
            if entry is None:
                raise NotFound(f"Kernel does not exist: {kernel_id}")
            if entry.record.state is KernelState.DELETING:
                break
            try:
                deleting = advance(entry.record, KernelEvent.DELETED, changed=parts.clock.stamp())
                await parts.writer.put(kernel_id, entry, deleting, token=token)
                break
            except WriteLost:
                await self.recheck(kernel_id, token, stale=False)
                await parts.known(kernel_id, None)
        await self._flights.run(kernel_id, lambda: self._erase(kernel_id, token))

    def resume(self, kernel_id: str, token: Token) -> None:
        """Finish in the background a deletion that was committed."""
        self._flights.begin(kernel_id, lambda: self._erase(kernel_id, token))

    async def _erase(self, kernel_id: str, token: Token) -> None:
        """Keeper and launcher confirm, then the tombstone. Raises ProxyError."""
        parts = self._parts
        entry = parts.cached(kernel_id)
        if entry is None or entry.record.state is not KernelState.DELETING:
            return
        try:
            ended = entry.record.buried or await self._end_kernel(kernel_id, entry, token)
            if ended:
                tombstone = bury(entry.record, deleted_at=parts.clock.stamp())
                await parts.writer.bury(kernel_id, entry, tombstone, token=token)
                parts.ownership.overtaken(kernel_id, token)
                parts.endpoints.forget(kernel_id)
                parts.timeline.note("deleted", kernel_id)
        except StaleToken:
            parts.ownership.overtaken(kernel_id, token)
            raise
        except WriteLost as error:
            await self.recheck(kernel_id, token, stale=False)
            raise Unavailable("the kernel was taken over by another proxy; ask again") from error

    async def _end_kernel(self, kernel_id: str, entry: Entry[KernelRecord], token: Token) -> bool:
        """True when keeper *and* launcher have confirmed, False when the keeper alone has: then
        the kernel is gone for its user, and the rest is done when the launcher is back.

        Raises Unavailable when neither has.
        """
        parts = self._parts
        guard = parts.leased_guard(kernel_id, token, None)
        endpoint = parts.endpoints.of(kernel_id, entry)
        asked = False
        if endpoint is not None:
            try:
                await parts.keepers.shutdown(
                    endpoint, token, now=False, timeout=_ASKED, guard=guard
                )
                asked = True
            except KeeperError as error:
                _log.info("the launcher must end this kernel", kernel=kernel_id, error=str(error))
        try:
            target = parts.launchers.target(entry.record.launcher_id)
            await parts.launcher_client.end(target, kernel_id, token, timeout=_ENDED, guard=guard)
        except (LauncherError, Unavailable) as error:
            if asked and parts.member.holds:
                return False
            raise Unavailable(
                f"the kernel will be ended when its launcher answers: {error}", retry_after=2.0
            ) from error
        return True

    async def bury_dead(self, kernel_id: str, token: Token) -> None:
        """End what a dead kernel left on its launcher. Raises nothing: it is done again later."""
        parts = self._parts
        entry = parts.cached(kernel_id)
        if entry is None or entry.record.state is not KernelState.DEAD or entry.record.buried:
            return
        guard = parts.leased_guard(kernel_id, token, None)
        try:
            target = parts.launchers.target(entry.record.launcher_id)
            await parts.launcher_client.end(target, kernel_id, token, timeout=_ENDED, guard=guard)
            buried = replace(entry.record, buried=True)
            await parts.writer.put(kernel_id, entry, buried, token=token)
        except (LauncherError, ProxyError, WriteLost, InvalidState) as error:
            _log.debug("not buried yet", kernel=kernel_id, error=str(error))


def _same_keeper(record: KernelRecord, handle: Handle) -> bool:
    return (
        record.endpoint is not None
        and (record.endpoint.host, record.endpoint.port) == (handle.host, handle.port)
        and record.epoch == handle.epoch
        and record.fingerprint == handle.fingerprint
    )
