"""What this proxy can reach, for ``holdfast doctor``: the launchers it would start kernels on, the
other proxies, etcd. Each is asked once, all at the same time, with one deadline.

A launcher's clock is compared by its own word, or by the ``Date`` of its answer, which is good to
a second. Must not judge: what is wrong and what to do is said by the command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from holdfast_proxy.errors import Unavailable
from holdfast_proxy.overview import EtcdView
from holdfast_proxy.ownership.calls.calling import Answer, Caller, CallError
from holdfast_proxy.ownership.overview.peer_states import PeerState, clock_skew
from holdfast_proxy.ownership.parts import Parts
from holdfast_proxy.store.contract import StoreStatus

_DEADLINE = 2.0
_AT_ONCE = 32


class Checks:
    """Asks everybody."""

    def __init__(self, *, parts: Parts, caller: Caller) -> None:
        self._parts = parts
        self._caller = caller

    def __repr__(self) -> str:
        return f"<Checks of {self._parts.member.proxy_id}>"

    async def run(
        self, *, peers: Mapping[str, PeerState], etcd: EtcdView, status: StoreStatus | None
    ) -> dict[str, Any]:
        slots = asyncio.Semaphore(_AT_ONCE)
        names = sorted(self._parts.view.launchers)
        launchers = await asyncio.gather(*(self._launcher(name, slots) for name in names))
        return {
            "version": 1,
            "self": self._parts.member.proxy_id,
            "time": self._parts.clock.stamp(),
            "proxies": [self._peer(name, state) for name, state in sorted(peers.items())],
            "launchers": launchers,
            "etcd": {**etcd.document(), "members": _members(status)},
        }

    def _peer(self, proxy_id: str, state: PeerState) -> dict[str, Any]:
        entry = self._parts.view.proxies.get(proxy_id)
        return {
            "id": proxy_id,
            "url": "" if entry is None else entry.record.url,
            "status": state.status,
            "message": state.message,
            "version": state.version,
            "clock_skew": _rounded(state.skew),
            "round_trip": _rounded(state.round_trip),
        }

    async def _launcher(self, name: str, slots: asyncio.Semaphore) -> dict[str, Any]:
        row: dict[str, Any] = {"id": name, "reachable": False, "message": "", "url": ""}
        row |= {"version": None, "clock_skew": None, "round_trip": None}
        try:
            target = self._parts.launchers.target(name)
            row["url"] = target.url
            async with slots:
                sent = self._parts.clock.now()
                answer = await self._caller.call("GET", target, "/v1/launcher", timeout=_DEADLINE)
                took = self._parts.clock.now() - sent
        except (CallError, Unavailable) as error:
            row["message"] = str(error)
            return row
        wall = self._parts.clock.wall()
        row |= {"reachable": True, "round_trip": _rounded(took)}
        row["clock_skew"] = _rounded(clock_skew(_time_of(answer), took=took, wall=wall))
        if answer.ok:
            row["version"] = answer.document.get("version")
        elif answer.status != 404:  # which an earlier version answers
            row["message"] = f"it answered {answer.status}: {answer.message}"
        return row


def _time_of(answer: Answer) -> str | None:
    """The peer's clock: its word, else the half of the second that it names (RFC 9110, 6.6.1)."""
    said = answer.document.get("time") if answer.ok else None
    if isinstance(said, str):
        return said
    try:
        moment = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return None
    return moment.replace(microsecond=500_000).isoformat()


def _members(status: StoreStatus | None) -> list[dict[str, Any]]:
    if status is None:
        return []
    return [{"name": member.name, "learner": member.learner} for member in status.members]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
