"""What this proxy finds out about the others by asking them: the evidence for a quick takeover.

Every second it asks each registered peer's ``/holdfast/v1/whoami``. The rules are in
``holdfast_protocol.ownership.Peer``; this module only asks, and tells of new evidence. Must not
know kernels or owner keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from holdfast_protocol.ownership import Peer, Verdict, may_take_over
from holdfast_protocol.records import ProxyRecord
from holdfast_proxy.ownership.cache import ClusterView, Entry
from holdfast_proxy.ownership.calls.calling import Caller, NoReply, NotSent, Target
from holdfast_proxy.ownership.clock import Clock

_log = structlog.get_logger(__name__)

#: Seconds between two questions to one peer, and how long an answer may take.
_INTERVAL = 1.0


class Peers:
    """The other proxies, as the view has them registered and as they answer us."""

    def __init__(
        self, *, me: str, view: ClusterView, caller: Caller, clock: Clock, ttl: float
    ) -> None:
        self._me = me
        self._view = view
        self._caller = caller
        self._clock = clock
        self._ttl = ttl
        self._peers: dict[str, Peer] = {}
        self._on_evidence: list[Callable[[str, Verdict], None]] = []

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {may_take_over(peer).name}" for name, peer in self._peers.items())
        return f"<Peers: {told or 'none'}>"

    def on_evidence(self, listener: Callable[[str, Verdict], None]) -> None:
        """``listener(proxy_id, verdict)`` when a peer's kernels may newly be taken."""
        self._on_evidence.append(listener)

    def live(self) -> list[str]:
        """Registered proxies against which there is no evidence, this one included."""
        others = (name for name in self._view.proxies if name != self._me)
        return [self._me, *(name for name in others if not self.verdict(name).allows)]

    def verdict(self, proxy_id: str) -> Verdict:
        """May the kernels that ``proxy_id`` owns be claimed? For ourselves: yes, see
        ``decide_claim``; a registration that the view has not is a lease that is gone."""
        entry = self._view.proxies.get(proxy_id)
        if entry is None:
            return Verdict.GONE
        return may_take_over(self._of(proxy_id, entry))

    def _of(self, proxy_id: str, entry: Entry[ProxyRecord]) -> Peer:
        known = self._peers.get(proxy_id)
        if known is None or known.term != entry.revision:
            known = Peer(proxy_id, entry.record.boot_id, entry.revision)
        return known

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            others = {name: e for name, e in self._view.proxies.items() if name != self._me}
            for gone in self._peers.keys() - others.keys():
                del self._peers[gone]
            await self.ask(others)
            await asyncio.sleep(_INTERVAL)

    async def ask(self, others: Mapping[str, Entry[ProxyRecord]]) -> None:
        """One question to each, all at the same time."""
        await asyncio.gather(*(self._ask(name, entry) for name, entry in others.items()))

    async def _ask(self, proxy_id: str, entry: Entry[ProxyRecord]) -> None:
        target = Target(url=entry.record.url, fingerprint=entry.record.fingerprint)
        before = self._of(proxy_id, entry).observed_at(self._clock.now(), ttl=self._ttl)
        try:
            answer = await self._caller.call(
                "GET", target, "/holdfast/v1/whoami", timeout=_INTERVAL, acts=True
            )
        except NotSent as error:
            after = before.refused(self._clock.now()) if error.refused else before.silent()
        except NoReply:
            after = before.silent()
        else:
            boot_id = answer.document.get("boot_id") if answer.ok else None
            after = before.silent()
            if isinstance(boot_id, str):
                after = before.answered(boot_id, self._clock.now())
        after.check_invariants()
        self._peers[proxy_id] = after
        if after.suspect is not None and before.suspect is None:
            _log.warning("a peer seems gone", peer=proxy_id, evidence=after.suspect.value)
            for listener in self._on_evidence:
                listener(proxy_id, after.suspect)
