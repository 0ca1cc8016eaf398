"""What the other proxies say of themselves, asked when somebody looks and not more often.

One question to each registered peer, all at once with one short deadline, kept for a second. Who
does not answer in time is unreachable *from here*, which is what is shown. Must not decide
anything: takeovers have evidence of their own (``ownership.peers``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from holdfast_protocol.errors import RecordError
from holdfast_protocol.record_codec import Fields
from holdfast_protocol.records import ProxyRecord
from holdfast_proxy.errors import NotFound, Unavailable
from holdfast_proxy.overview import DEGRADED, DRAINING, READY, UNREACHABLE
from holdfast_proxy.ownership.cache import ClusterView
from holdfast_proxy.ownership.calls.calling import (
    Answer,
    Caller,
    CallError,
    NoReply,
    NotSent,
    Target,
)
from holdfast_proxy.ownership.clock import Clock

PATH = "/holdfast/v1/proxy"
#: Seconds for an answer, and for which one is good.
_DEADLINE = 0.8
_KEEP = 1.0
_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerState:
    """A proxy's own word. ``heard``: ISO 8601 by launcher, of heartbeats that it got itself.
    ``skew``: seconds by which its clock is ahead of ours, ``round_trip`` of the question."""

    status: str
    message: str = ""
    version: str | None = None
    tunnels: int | None = None
    heard: Mapping[str, str] = field(default_factory=dict)
    skew: float | None = None
    round_trip: float | None = None


class PeerStates:
    """Asks, and remembers for a second."""

    def __init__(
        self, *, me: str, cluster_key: str, view: ClusterView, caller: Caller, clock: Clock
    ) -> None:
        self._me = me
        self._cluster_key = cluster_key
        self._view = view
        self._caller = caller
        self._clock = clock
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._kept: dict[str, tuple[str, float, PeerState]] = {}

    def __repr__(self) -> str:
        said = ", ".join(f"{name} {kept[2].status}" for name, kept in self._kept.items())
        return f"<PeerStates: {said or 'nobody asked yet'}>"

    async def ask(self) -> dict[str, PeerState]:
        """The state of every other registered proxy, within the deadline."""
        others = {n: e.record for n, e in self._view.proxies.items() if n != self._me}
        for gone in self._kept.keys() - others.keys():
            del self._kept[gone]
        names = list(others)
        states = await asyncio.gather(*(self._state(name, others[name]) for name in names))
        return dict(zip(names, states, strict=True))

    async def _state(self, proxy_id: str, record: ProxyRecord) -> PeerState:
        now = self._clock.now()
        kept = self._kept.get(proxy_id)
        if kept is not None and kept[0] == record.boot_id and now - kept[1] < _KEEP:
            return kept[2]
        async with self._slots:
            state = await self._ask(record)
        self._kept[proxy_id] = (record.boot_id, self._clock.now(), state)
        return state

    async def _ask(self, record: ProxyRecord) -> PeerState:
        sent = self._clock.now()
        try:
            answer = await self._caller.call(
                "GET",
                self._target(record),
                PATH,
                headers=[("Holdfast-Forwarded", self._me)],
                timeout=_DEADLINE,
            )
        except NotSent as error:
            why = "its port refuses connections" if error.refused else str(error)
            return PeerState(status=UNREACHABLE, message=why)
        except NoReply:
            return PeerState(status=UNREACHABLE, message=f"no answer within {_DEADLINE} s")
        took = self._clock.now() - sent
        return read_state(answer, record, took=took, wall=self._clock.wall())

    async def drain(self, proxy_id: str) -> None:
        """Ask it to drain. Raises NotFound, Unavailable."""
        entry = self._view.proxies.get(proxy_id)
        if entry is None:
            raise NotFound(f"there is no proxy {proxy_id!r}", reason="no_such_proxy")
        path = f"/holdfast/v1/proxies/{quote(proxy_id, safe='')}/drain"
        try:
            answer = await self._caller.call(
                "POST",
                self._target(entry.record),
                path,
                headers=[("Holdfast-Forwarded", self._me)],
                timeout=2.0,
                acts=True,
            )
        except CallError as error:
            raise Unavailable(f"{proxy_id} does not answer: {error}") from error
        if not answer.ok:
            raise Unavailable(f"{proxy_id} answered {answer.status}: {answer.message}")

    def _target(self, record: ProxyRecord) -> Target:
        return Target(url=record.url, bearer=self._cluster_key, fingerprint=record.fingerprint)


def read_state(answer: Answer, record: ProxyRecord, *, took: float, wall: float) -> PeerState:
    """What an answer says that came at ``wall`` (seconds since 1970) after ``took`` seconds."""
    if answer.status == 503:
        return PeerState(status=DRAINING, message=answer.message)
    if answer.status == 404:  # a proxy of an earlier version: it lives, and that is all it says
        return PeerState(status=READY, message="it cannot say more: an earlier version")
    if not answer.ok:
        return PeerState(status=DEGRADED, message=f"it answered {answer.status}: {answer.message}")
    source = Fields(answer.document, "proxy")
    try:
        if source.text("boot_id") != record.boot_id:
            return PeerState(status=UNREACHABLE, message="another process answers there")
        stamp = source.text_or_none("time")
        return PeerState(
            status=source.text("status"),
            message=source.text_or_none("message") or "",
            version=source.text_or_none("version"),
            tunnels=source.integer("tunnels"),
            heard={k: v for k, v in source.mapping("launchers").items() if isinstance(v, str)},
            skew=clock_skew(stamp, took=took, wall=wall),
            round_trip=took,
        )
    except RecordError as error:
        return PeerState(status=DEGRADED, message=f"its answer cannot be read: {error}")


def clock_skew(stamp: str | None, *, took: float, wall: float) -> float | None:
    """Seconds by which the clock that wrote ``stamp`` is ahead of ours, on the supposition that
    it was written in the middle of a question that took ``took`` and ended at ``wall``."""
    try:
        moment = datetime.fromisoformat(stamp or "")
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() - (wall - took / 2)
