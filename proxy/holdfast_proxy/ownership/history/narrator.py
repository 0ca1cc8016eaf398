"""Writes on the timeline what no single step of a kernel's life writes: who came and went, who
took a kernel from whom and why, what a log has lost.

It only listens: to the view, to claims, to keepers' states. Every proxy sees a proxy or launcher
go; they write it one after the other, unless another one has by then (see ``chronicle``). It
must not decide anything, and nothing depends on what it writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import Tombstone
from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.ownership import Verdict
from holdfast_protocol.records import EventRecord
from holdfast_proxy.ownership.background import TaskSet
from holdfast_proxy.ownership.cache import Change, ClusterView, Entry
from holdfast_proxy.ownership.calls.peers import Peers
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.ownership.history.chronicle import has_mark, surplus
from holdfast_proxy.ownership.history.timeline import Timeline
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.ownership.owner import Ownership
from holdfast_proxy.store.contract import MAX_TXN_OPS, Delete, Store
from holdfast_proxy.store.errors import StoreError

_log = structlog.get_logger(__name__)

#: Seconds by which each proxy waits longer than the one before it to write what all have seen.
_RANK = 0.5
#: Seconds in which a proxy's own last word arrives.
_SETTLE = 0.5
#: Seconds between two lines about what one kernel's log has lost.
_SUM_UP = 60.0
#: Seconds between two looks for lines that are too many.
_PRUNE = 60.0
_LEAVING = "proxy draining"


class Narrator:
    """One proxy's share in the timeline."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        view: ClusterView,
        member: Member,
        peers: Peers,
        ownership: Ownership,
        timeline: Timeline,
        tasks: TaskSet,
        clock: Clock,
    ) -> None:
        self._store = store
        self._keys = keys
        self._view = view
        self._member = member
        self._peers = peers
        self._timeline = timeline
        self._tasks = tasks
        self._clock = clock
        self._joined = 0
        self._gone: dict[str, int] = {}
        self._former: dict[str, tuple[str, int]] = {}
        self._lost: dict[str, tuple[int, float]] = {}
        view.listen(self._changed)
        ownership.on_claimed(self._claimed)
        member.on_joined(self._rejoined)

    def __repr__(self) -> str:
        return f"<Narrator of {self._member.proxy_id}, {len(self._former)} former owners known>"

    # --- this proxy ---

    async def _rejoined(self) -> None:
        again = "again, with a new lease" if self._joined else ""
        self._joined += 1
        self._timeline.note(
            "proxy joined", None, again, facts={"boot_id": self._member.record.boot_id}
        )

    def draining(self, *, kernels: int) -> None:
        """This proxy leaves in order."""
        self._timeline.note(_LEAVING, None, f"it gives up {kernels} kernels")

    # --- what the view says ---

    def _changed(self, change: Change) -> None:
        match change.kind:
            case Kind.PROXY:
                self._proxy_changed(change)
            case Kind.LAUNCHER if self._view.synced:
                self._launcher_changed(change)
            case Kind.OWNER if change.before is not None:
                before = change.before.record.proxy_id
                after = None if change.after is None else change.after.record.proxy_id
                if before != after:
                    self._former[change.name] = (before, change.revision)
            case Kind.KERNEL:
                if change.after is None or isinstance(change.after.record, Tombstone):
                    self._former.pop(change.name, None)
                    self._lost.pop(change.name, None)
            case _:
                pass

    def _proxy_changed(self, change: Change) -> None:
        if change.after is not None or change.before is None:
            self._gone.pop(change.name, None)
            return
        self._gone[change.name] = change.revision
        if change.name == self._member.proxy_id or not self._view.synced:
            return
        self._tell_once(
            "proxy gone",
            f"gone {change.name} {change.before.revision}",
            "its lease ended",
            proxy_id=change.name,
        )

    def _left_in_order(self, proxy_id: str) -> bool:
        """Its last word was that it leaves."""
        words = [
            (name, entry.record.kind)
            for name, entry in self._view.events.items()
            if entry.record.proxy_id == proxy_id and entry.record.kind in (_LEAVING, "proxy joined")
        ]
        return bool(words) and max(words)[1] == _LEAVING

    def _launcher_changed(self, change: Change) -> None:
        before = None if change.before is None else change.before.record.boot_id
        after = None if change.after is None else change.after.record.boot_id
        if before == after:
            return
        kind, detail = "launcher joined", ""
        if after is None:
            kind, detail = "launcher gone", "it sent no heartbeat for a while; its kernels go on"
        elif before is not None:
            kind = "launcher restarted"
        mark = f"{kind} {change.name} {change.revision}"
        self._tell_once(kind, mark, detail, launcher_id=change.name)

    def _tell_once(
        self,
        kind: str,
        mark: str,
        detail: str,
        *,
        proxy_id: str | None = None,
        launcher_id: str | None = None,
    ) -> None:
        at = self._timeline.now

        async def tell() -> None:
            await asyncio.sleep(_SETTLE + self._rank() * _RANK)
            if has_mark(self._view.events, mark):
                return
            if proxy_id is not None and self._left_in_order(proxy_id):
                return
            facts = {"by": self._member.proxy_id}
            self._timeline.note(
                kind,
                None,
                detail,
                proxy_id=proxy_id,
                launcher_id=launcher_id,
                facts=facts,
                mark=mark,
                at=at,
            )

        self._tasks.spawn(tell(), name=f"tell {mark}")

    def _rank(self) -> int:
        return sorted(self._peers.live()).index(self._member.proxy_id)

    # --- takeovers ---

    def _claimed(self, kernel_id: str, token: Token, created: bool) -> None:
        if created:
            return
        former, revision = self._former.get(kernel_id, (None, 0))
        facts: dict[str, Any] = {"token": str(token)}
        if former is None:
            self._timeline.note("taken over", kernel_id, "nobody owned it", facts=facts)
            return
        why = self._why(former, revision)
        facts |= {"from": former, "why": why}
        detail = f"from {former}: {why}"
        if former == self._member.proxy_id:
            detail = f"its own again: {why}"
        self._timeline.note("taken over", kernel_id, detail, facts=facts)

    def _why(self, former: str, revision: int) -> str:
        """``revision``: at which its owner key went or was replaced."""
        if self._gone.get(former) == revision or former == self._member.proxy_id:
            return str(Verdict.GONE.value)
        verdict = self._peers.verdict(former)
        if verdict in (Verdict.REFUSED, Verdict.REPLACED):
            return str(verdict.value)
        return "it gave the kernel up"

    # --- losses ---

    def kernel_lost(self, kernel_id: str, lost: int) -> None:
        """A keeper says that its log dropped ``lost`` messages so far before all had read them.

        What a log that overflows all day loses is summed up: lines of the timeline are few.
        """
        known, told_at = self._lost.get(kernel_id, (0, float("-inf")))
        if lost <= known:
            self._lost[kernel_id] = (lost, told_at)
            return
        now = self._clock.now()
        if now - told_at < _SUM_UP:
            return
        self._lost[kernel_id] = (lost, now)
        mark = f"gap {kernel_id} {lost}"
        if not has_mark(self._view.events, mark):
            detail = f"{lost - known} messages left the log before every client had read them"
            self._timeline.note("gap", kernel_id, detail, facts={"lost": lost - known}, mark=mark)

    # --- bounds ---

    async def run(self) -> None:
        """Remove lines that are too many, for ever."""
        while True:
            await asyncio.sleep(_PRUNE)
            await self.prune()

    async def prune(self) -> None:
        """By the first proxy in order: one is enough. Raises nothing on purpose."""
        if self._rank() != 0 or not self._member.holds:
            return
        await remove_surplus(self._store, self._keys, self._view.events)


async def remove_surplus(
    store: Store, keys: Keys, stored: Mapping[str, Entry[EventRecord]], **bound: int
) -> None:
    """Delete the oldest lines above the bound."""
    names = surplus(stored, **bound)
    for start in range(0, len(names), MAX_TXN_OPS):
        batch = names[start : start + MAX_TXN_OPS]
        try:
            # Lines are never put twice, so there is nothing newer that this could delete.
            await store.txn(
                [], [Delete(keys.of(Kind.EVENT, name)) for name in batch], unconditional=True
            )
        except StoreError as error:
            _log.debug("old lines of the timeline stay", error=str(error))
            return
