"""Restart, interrupt and delete as a client asks for them, at whichever proxy it asks.

Interrupts go straight to the keeper. Restart and delete are the owner's: this proxy claims the
kernel if it may, else passes the call on, once; through a takeover it waits, bounded. Without a
request id nothing that may have been sent is sent again. With etcd away the owner's restarts go
on with the last token, which the keeper judges; deletions do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from holdfast_protocol.errors import InvalidState
from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import (
    KernelEvent,
    KernelRecord,
    KernelState,
    Tombstone,
    advance,
)
from holdfast_proxy.cluster import KeeperEndpoint, KernelModel, LifecycleCall
from holdfast_proxy.errors import (
    Conflict,
    Misdirected,
    NotFound,
    ProxyError,
    StaleToken,
    StartFailed,
    Unavailable,
)
from holdfast_proxy.ownership.cache import Entry
from holdfast_proxy.ownership.calls.calling import Target
from holdfast_proxy.ownership.calls.forwarding import Forwarder, OwnerUnreachable
from holdfast_proxy.ownership.calls.keepers import (
    KeeperError,
    KeeperRefused,
    KeeperState,
    KeeperUnreachable,
)
from holdfast_proxy.ownership.kernels.endings import Endings
from holdfast_proxy.ownership.kernels.models import live_model
from holdfast_proxy.ownership.kernels.writes import WriteLost, read_kernel
from holdfast_proxy.ownership.member import Standing
from holdfast_proxy.ownership.owner import Elsewhere
from holdfast_proxy.ownership.parts import Parts

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

#: Seconds that an owner's answer may come after its deletion has taken the owner key away.
_LAST_WORDS = 2.0


class Lifecycle:
    """The calls of clients that act on a kernel that exists."""

    def __init__(self, parts: Parts, endings: Endings, forwarder: Forwarder) -> None:
        self._parts = parts
        self._endings = endings
        self._forwarder = forwarder

    def __repr__(self) -> str:
        return f"<Lifecycle by {self._forwarder!r}>"

    async def interrupt(self, kernel_id: str, user: str | None, call: LifecycleCall) -> None:
        """Raises ProxyError."""
        entry = await self._parts.known(kernel_id, user)
        for attempt in (1, 2):
            endpoint = self._running(kernel_id, entry)
            try:
                await self._parts.keepers.interrupt(
                    endpoint, call, guard=self._parts.guard(kernel_id, None, call)
                )
                return
            except KeeperRefused as error:
                raise _as_answer(error) from error
            except KeeperError as error:
                unsent = isinstance(error, KeeperUnreachable) and not error.sent
                if attempt == 2 or not (unsent and await self._seek(kernel_id, entry)):
                    raise Unavailable(f"the kernel cannot be reached now: {error}") from error
                entry = await self._parts.known(kernel_id, user)

    async def restart(self, kernel_id: str, user: str | None, call: LifecycleCall) -> KernelModel:
        """Raises ProxyError."""
        entry = await self._parts.known(kernel_id, user)
        self._running(kernel_id, entry)
        owner_call = entry.record.user

        async def act(token: Token) -> KernelModel:
            return await self._restart(kernel_id, token, call)

        async def forward(peer: Target) -> KernelModel:
            return await self._forwarder.restart(peer, kernel_id, owner_call, call)

        return await self._by_owner(kernel_id, call, act, forward, fenced=True)

    async def delete(self, kernel_id: str, user: str | None, call: LifecycleCall) -> None:
        """Raises ProxyError; NotFound for what is deleted already."""
        entry = await self._parts.known(kernel_id, user)
        if entry.record.state is not KernelState.DELETING:
            self._parts.guard(kernel_id, None, call)()

        async def act(token: Token) -> None:
            await self._endings.delete(kernel_id, token, call)

        async def forward(peer: Target) -> None:
            await self._forwarder.delete(peer, kernel_id, entry.record.user, call)

        await self._by_owner(kernel_id, call, act, forward, fenced=False)

    # --- the owner's part ---

    async def _restart(self, kernel_id: str, token: Token, call: LifecycleCall) -> KernelModel:
        entry = await self._parts.known(kernel_id, None)
        endpoint = self._running(kernel_id, entry)
        try:
            state = await self._parts.keepers.restart(
                endpoint, token, call, guard=self._parts.guard(kernel_id, token, call)
            )
        except StaleToken:
            self._parts.ownership.overtaken(kernel_id, token)
            raise
        except KeeperRefused as error:
            raise _as_answer(error) from error
        except KeeperError as error:
            await self._seek(kernel_id, entry)
            raise Unavailable(f"the kernel cannot be reached now: {error}") from error
        self._parts.tasks.spawn(
            self._restarted(kernel_id, token, state), name=f"restarted {kernel_id}"
        )
        return live_model(kernel_id, entry.record, state)

    async def _restarted(self, kernel_id: str, token: Token, state: KeeperState) -> None:
        """Write the incarnation down, if that can be done; the keeper knows it anyway."""
        parts = self._parts
        parts.timeline.note("restarted", kernel_id, f"incarnation {state.incarnation}")
        entry = parts.cached(kernel_id)
        if entry is None or not parts.member.holds:
            return
        try:
            record = advance(
                entry.record,
                KernelEvent.RESTARTED,
                changed=parts.clock.stamp(),
                incarnation=max(state.incarnation, entry.record.incarnation),
                kernel_session=state.kernel_session,
            )
            await parts.writer.put(kernel_id, entry, record, token=token)
        except (WriteLost, InvalidState, ProxyError) as error:
            _log.info("a restart was not written down", kernel=kernel_id, error=str(error))

    async def _by_owner(
        self,
        kernel_id: str,
        call: LifecycleCall,
        act: Callable[[Token], Awaitable[_T]],
        forward: Callable[[Target], Awaitable[_T]],
        *,
        fenced: bool,
    ) -> _T:
        """Have the owner do it: ourselves, or another proxy. Waits through a takeover."""
        parts = self._parts
        give_up = parts.clock.now() + parts.takeover_wait
        why = "its owner cannot be reached"
        while True:
            await parts.known(kernel_id, None)  # what was deleted meanwhile is claimed by nobody
            owner = await self._owner(kernel_id, call, fenced=fenced)
            if isinstance(owner, Token):
                return await act(owner)
            if call.forwarded_by is not None:
                raise Misdirected("this proxy does not own the kernel", owner=owner.owner)
            peer = parts.view.proxies.get(owner.owner)
            if peer is not None:
                target = Target(url=peer.record.url, fingerprint=peer.record.fingerprint)
                try:
                    return await self._passed_on(kernel_id, owner.owner, forward(target))
                except NotFound:
                    await self._prove_gone(kernel_id)
                    raise
                except Misdirected as error:
                    why = f"its owner is changing: {error.message}"
                except OwnerUnreachable as error:
                    why = f"its owner cannot be reached: {error}"
                    if error.sent and call.request_id is None:
                        await parts.known(kernel_id, None)
                        raise Unavailable(f"the request may have acted, or not: {why}") from error
            if parts.clock.now() > give_up:
                raise Unavailable(f"the kernel is being taken over: {why}", retry_after=1.0)
            await parts.view.wait_changed(kernel_id, 0.25)

    async def _passed_on(self, kernel_id: str, owner: str, answer: Awaitable[_T]) -> _T:
        """The owner's answer, for as long as it is the owner: a stopped process takes requests
        into its socket and never answers. Raises OwnerUnreachable when it lost the kernel."""
        clock, ownership = self._parts.clock, self._parts.ownership
        task = asyncio.ensure_future(answer)
        lost_at: float | None = None
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=0.25)
                if task.done() or not ownership.lost_by(kernel_id, owner):
                    lost_at = None
                    continue
                lost_at = clock.now() if lost_at is None else lost_at
                entry = self._parts.cached(kernel_id)
                leaving = entry is None or entry.record.state is KernelState.DELETING
                if not leaving or clock.now() - lost_at > _LAST_WORDS:
                    raise OwnerUnreachable("it has lost its lease meanwhile", sent=True)
            return task.result()
        finally:
            task.cancel()

    async def _prove_gone(self, kernel_id: str) -> None:
        """Raises Unavailable unless the record bears out another proxy's 404, which may have
        come from something in front of it (promise 6)."""
        entry = await read_kernel(self._parts.view, kernel_id)
        if entry is None or isinstance(entry.record, Tombstone):
            return
        if entry.record.state not in (KernelState.DEAD, KernelState.DELETING):
            raise Unavailable("what answers for the kernel's owner does not know the kernel")

    async def _owner(
        self, kernel_id: str, call: LifecycleCall, *, fenced: bool
    ) -> Token | Elsewhere:
        member, ownership = self._parts.member, self._parts.ownership
        if member.held_up:
            raise Unavailable("this proxy stood still until a moment ago; ask again")
        token = ownership.token(kernel_id)
        if token is not None and fenced and member.standing is Standing.FENCED:
            return token
        if token is not None:
            member.require()
            return token
        if not member.holds and not fenced:
            member.require()
        if not member.holds:
            seen = self._parts.view.owner(kernel_id)
            if seen is not None and seen.proxy_id != member.proxy_id:
                return Elsewhere(seen.proxy_id)
        return await ownership.ensure(kernel_id, forwarded=call.forwarded_by is not None)

    # --- small parts ---

    def _running(self, kernel_id: str, entry: Entry[KernelRecord]) -> KeeperEndpoint:
        """Where its keeper listens. Raises NotFound for a dead or leaving one, Unavailable for
        one that starts."""
        record = entry.record
        if record.state in (KernelState.DEAD, KernelState.DELETING):
            raise NotFound(f"the kernel is gone: {record.reason or 'it was deleted'}")
        endpoint = self._parts.endpoints.of(kernel_id, entry)
        if endpoint is None or record.state is KernelState.STARTING:
            raise Unavailable("the kernel is still starting; ask again")
        return endpoint

    async def _seek(self, kernel_id: str, entry: Entry[KernelRecord]) -> bool:
        token = self._parts.ownership.token(kernel_id)
        return await self._endings.seek(kernel_id, entry, token)


def _as_answer(error: KeeperRefused) -> ProxyError:
    if error.status == 409:
        return Conflict(str(error), reason=error.reason or None)
    if error.status == 500 and error.reason in ("start_failed", "restart_failed"):
        return StartFailed(str(error))
    return Unavailable(f"the keeper answered {error.status}: {error}")
