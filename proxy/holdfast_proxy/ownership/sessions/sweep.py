"""Deletes sessions whose kernel is gone, whoever ended it and however.

A session without a kernel is shown to nobody already, so this only keeps etcd tidy, and one proxy
does it: the first by id of those that hold a lease. Every deletion compares what was read, so two
that believe themselves first do no harm. Must not know HTTP or how kernels end.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from holdfast_protocol.kernel_records import KernelRecord, Tombstone
from holdfast_proxy.errors import ProxyError
from holdfast_proxy.ownership.cache import ClusterView
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.ownership.kernels.models import is_shown
from holdfast_proxy.ownership.kernels.writes import read_kernel
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.sessions.shelf import START_GRACE, Session, Shelf

_log = structlog.get_logger(__name__)
_EVERY: Final = 5.0


class SessionSweep:
    """Looks at all sessions every few seconds."""

    def __init__(
        self,
        *,
        shelf: Shelf,
        view: ClusterView,
        member: Member,
        clock: Clock,
        every: float = _EVERY,
    ) -> None:
        self._shelf = shelf
        self._view = view
        self._member = member
        self._clock = clock
        self._every = every

    def __repr__(self) -> str:
        return f"<SessionSweep of {len(self._view.sessions)}>"

    async def run(self) -> None:
        """For ever."""
        await self._view.wait_synced()
        while True:
            try:
                if self._view.sessions and self._is_mine():
                    await self.look()
            except ProxyError as error:
                _log.debug("sessions are looked at later", error=error.message)
            await asyncio.sleep(self._every)

    async def look(self) -> None:
        """Once. Raises Unavailable."""
        for session in await self._shelf.all(None):
            entry = self._view.kernel(session.kernel_id)
            if not self._is_left(session, None if entry is None else entry.record):
                continue
            if entry is None and await read_kernel(self._view, session.kernel_id) is not None:
                continue  # known to the store and not to us yet
            _log.info("session deleted with its kernel", session=session.id)
            await self._shelf.remove(session)

    def _is_left(self, session: Session, kernel: KernelRecord | Tombstone | None) -> bool:
        if isinstance(kernel, KernelRecord):
            return not is_shown(kernel, age=self._clock.age(kernel.changed))
        return isinstance(kernel, Tombstone) or session.age > START_GRACE

    def _is_mine(self) -> bool:
        return self._member.holds and self._member.proxy_id == min(self._view.proxies, default="")
