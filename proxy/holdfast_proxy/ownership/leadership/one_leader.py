"""active-passive: the proxy that holds the ``leader`` key owns all kernels, the others none.

The key is claimed by the same pure decisions as a kernel's owner key: swapped where it was seen,
under this proxy's lease, by whoever finds it free or its holder gone (``may_take_over``). So the
same invariant holds: one winner per revision, and a late claim cannot undo a newer one's.

A leader that lost the key while it lives (a firewall made it look dead) must release what it
owns, because its lease still stands and nobody would take living keys from it: ``on_lost``.
Safety never rests on that: claims compare the leader key, and tokens fence the rest. Knows
nothing of kernels.
"""

from __future__ import annotations

import asyncio
import random
import secrets

import structlog

from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import Token
from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.ownership import (
    Hold,
    SeenOwner,
    Swap,
    Term,
    TermEvent,
    TermState,
    Verdict,
    Yield,
    decide_claim,
    takeover_delay,
)
from holdfast_protocol.records import OwnerRecord
from holdfast_proxy.errors import ProxyError, Unavailable
from holdfast_proxy.ownership.cache import Change, ClusterView
from holdfast_proxy.ownership.calls.peers import Peers
from holdfast_proxy.ownership.history.timeline import Timeline
from holdfast_proxy.ownership.leadership.authority import Authority
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.store.contract import Compare, Delete, KeyValue, ModEquals, Put, Store
from holdfast_proxy.store.errors import StoreError, Unknown

_log = structlog.get_logger(__name__)

_TIMEOUT = 2.0
#: Seconds between looks at the leader key, for what the watch and the peers did not tell.
_LOOK = 1.0


class OneLeader(Authority):
    """This proxy's candidature and its terms as leader."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        view: ClusterView,
        member: Member,
        peers: Peers,
        timeline: Timeline,
    ) -> None:
        super().__init__()
        self._store = store
        self._key = keys.leader
        self._view = view
        self._member = member
        self._peers = peers
        self._timeline = timeline
        self._term = _new_term()
        self._resigned = False
        self._look = asyncio.Event()
        view.listen(self._changed)
        peers.on_evidence(self._suspected)

    def __repr__(self) -> str:
        return f"<OneLeader {self._term.state.value}, leader {self.leader}>"

    # --- Authority ---

    @property
    def may_own(self) -> bool:
        return self._term.held

    @property
    def leader(self) -> str | None:
        seen = self._view.leader
        return None if seen is None else seen.proxy_id

    @property
    def compares(self) -> list[Compare]:
        token = self._term.token
        if token is None:
            raise Unavailable("this proxy does not lead the cluster now; ask again")
        return [ModEquals(self._key, token.revision)]

    @property
    def passive(self) -> str | None:
        leader = self.leader
        if self.may_own or leader is None or leader == self._member.proxy_id:
            return None
        if not self._member.holds:
            return None  # without etcd nobody can say whether that one still lives
        if self._peers.verdict(leader).allows:
            return None  # nobody leads: until somebody does, clients are better here than nowhere
        return f"passive: {leader} leads"

    async def run(self) -> None:
        await self._view.wait_synced()
        while True:
            self._look.clear()
            self._confirm()
            try:
                await self._stand()
            except (ProxyError, StoreError, RecordError) as error:
                _log.debug("not elected", error=str(error))
            try:
                async with asyncio.timeout(_LOOK):
                    await self._look.wait()
            except TimeoutError:
                pass

    async def resign(self) -> None:
        self._resigned = True
        token = self._term.token
        if token is None:
            return
        try:
            await self._store.txn(
                [ModEquals(self._key, token.revision)], [Delete(self._key)], timeout=_TIMEOUT
            )
        except StoreError as error:
            _log.debug("the leader key stays until its lease ends", error=str(error))
        if self._term.held:
            self._term = self._term.after(TermEvent.RELEASED)

    # --- the candidature ---

    async def _stand(self) -> None:
        """Become leader if that is allowed now. Raises ProxyError, StoreError, RecordError."""
        if not self._may_stand() or not self._is_open(self._view.leader):
            return
        await asyncio.sleep(self._delay())
        seen = await self._view.read_leader()
        if not self._may_stand():
            return
        decision = decide_claim(
            me=self._member.proxy_id,
            claim_id=self._term.claim_id,
            seen=seen,
            era=self._member.era,
            verdict=None if seen is None else self._peers.verdict(seen.proxy_id),
        )
        match decision:
            case Yield():
                self._term = _new_term()
            case Hold(token):
                if self._term.state is not TermState.CLAIMING:
                    self._term = self._term.after(TermEvent.CLAIM_SENT)
                self._elected(token, seen)
            case Swap(observed):
                await self._claim(observed, seen)

    def _may_stand(self) -> bool:
        return not self._resigned and not self._term.held and self._member.holds

    def _is_open(self, seen: SeenOwner | None) -> bool:
        if seen is None or seen.proxy_id == self._member.proxy_id:
            return True
        return self._peers.verdict(seen.proxy_id).allows

    def _delay(self) -> float:
        """The first in rank stands at once, so that most elections have one candidate."""
        return takeover_delay(
            kernel_id="leader",
            me=self._member.proxy_id,
            live=self._peers.live(),
            freed=1,
            chance=random.random(),  # noqa: S311 (jitter)
        )

    async def _claim(self, observed: int, seen: SeenOwner | None) -> None:
        value = OwnerRecord(proxy_id=self._member.proxy_id, claim_id=self._term.claim_id).encode()
        lease, registered = self._member.lease_id, self._member.compare
        self._term = self._term.after(TermEvent.CLAIM_SENT)
        try:
            result = await self._store.txn(
                [ModEquals(self._key, observed), registered],
                [Put(self._key, value, lease)],
                timeout=_TIMEOUT,
            )
        except Unknown:
            self._look.set()  # the key says who won: our claim id in it means us
            return
        if not result.succeeded:
            self._term = self._term.after(TermEvent.CLAIM_LOST)
            return
        self._view.apply(KeyValue(self._key, value, result.revision, result.revision, 1, lease))
        self._elected(Token(self._member.era, result.revision), seen)

    def _elected(self, token: Token, before: SeenOwner | None) -> None:
        self._term = self._term.after(TermEvent.CLAIM_WON, token=token)
        self._confirm()
        if not self._term.held:
            return
        former = "nobody" if before is None else before.proxy_id
        _log.info("this proxy leads", proxy=self._member.proxy_id, term=str(token), former=former)
        self._timeline.note("leader", None, f"{self._member.proxy_id} leads, after {former}")
        for listener in self._on_gained:
            listener()

    # --- what the watch and the peers say ---

    def _changed(self, change: Change) -> None:
        if change.kind is Kind.LEADER:
            self._confirm()
            self._look.set()

    def _confirm(self) -> None:
        """End the term if the view, which only goes forward, has another leader key, or none.

        Told by the claim's id, because a store that was restored gives lower revisions than our
        token's. Asked after an election, too: what undid a claim may be seen before its answer.
        """
        seen = self._view.leader
        if not self._term.held or (seen is not None and seen.claim_id == self._term.claim_id):
            return
        _log.warning("this proxy leads no more", proxy=self._member.proxy_id)
        self._term = _new_term()
        for listener in self._on_lost:
            listener()

    def _suspected(self, proxy_id: str, verdict: Verdict) -> None:
        if proxy_id == self.leader:
            _log.info("the leader seems gone", leader=proxy_id, because=verdict.value)
            self._look.set()


def _new_term() -> Term:
    return Term(secrets.token_hex(8))
