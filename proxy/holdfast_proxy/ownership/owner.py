"""This proxy's terms as owner: claims, takeovers, losses, releases.

The decisions are ``holdfast_protocol.ownership``'s; here they meet the store. One claim per
kernel runs at a time. What the watch says of owner keys ends terms and begins takeovers: kernels
that somebody asks for first (``ensure``), the rest in the background, eight at a time. Must not
know what an owner does with a kernel: ``on_claimed`` tells.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import Tombstone
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
from holdfast_proxy.ownership.background import SingleFlight, TaskSet
from holdfast_proxy.ownership.cache import Change, ClusterView
from holdfast_proxy.ownership.calls.peers import Peers
from holdfast_proxy.ownership.leadership.authority import Authority
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.store.contract import Delete, KeyValue, ModEquals, Put, Store
from holdfast_proxy.store.errors import LeaseLost, StoreError, Unknown

_log = structlog.get_logger(__name__)

_TIMEOUT = 2.0
#: Takeovers that run at the same time in the background.
_AT_ONCE = 8
#: Seconds between looks for kernels that nobody owns, for what the watch's events missed.
_SWEEP = 2.0
#: Seconds within which owner keys that vanish count as one mass expiry.
_BURST = 0.5


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another proxy owns the kernel and may not be replaced now."""

    owner: str


class Ownership:
    """Which kernels this proxy owns, with what token."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        view: ClusterView,
        member: Member,
        peers: Peers,
        authority: Authority,
        tasks: TaskSet,
    ) -> None:
        self._store = store
        self._keys = keys
        self._view = view
        self._member = member
        self._peers = peers
        self._authority = authority
        self._tasks = tasks
        self._terms: dict[str, Term] = {}
        self._claims = SingleFlight(tasks)
        self._releases = SingleFlight(tasks)
        self._waiting: set[str] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._freed_at: list[float] = []
        self._closing = False
        self._on_claimed: list[Callable[[str, Token, bool], None]] = []
        view.listen(self._changed)
        peers.on_evidence(self._suspected)
        member.on_joined(self._rejoined)
        authority.on_gained(self._take_unowned)
        authority.on_lost(self._step_down)

    def __repr__(self) -> str:
        held = sum(term.held for term in self._terms.values())
        return f"<Ownership of {held} kernels, {len(self._waiting)} takeovers waiting>"

    def on_claimed(self, listener: Callable[[str, Token, bool], None]) -> None:
        """``listener(kernel_id, token, created)`` after each won claim; must not block.
        ``created``: by the start of a new kernel, so there was no owner before."""
        self._on_claimed.append(listener)

    # --- what others ask ---

    def token(self, kernel_id: str) -> Token | None:
        """Our token for a kernel that we own as far as we have seen; None when we do not."""
        term = self._terms.get(kernel_id)
        return None if term is None else term.token

    def effective(self, kernel_id: str) -> bool:
        """Keeper and launcher have acknowledged our token."""
        term = self._terms.get(kernel_id)
        return term is not None and term.state is TermState.EFFECTIVE

    def owned(self) -> list[str]:
        return [kernel_id for kernel_id, term in self._terms.items() if term.held]

    async def ensure(self, kernel_id: str, *, forwarded: bool = False) -> Token | Elsewhere:
        """Own the kernel, claiming it if that is allowed now.

        ``forwarded``: another proxy believes that we are the owner, so believe the store and
        not the view. Raises Unavailable when a claim is needed and cannot be made now.
        """
        token = self.token(kernel_id)
        if token is not None:
            return token
        self._member.require()
        if not self._authority.may_own:
            return self._leader()
        return await self._claims.run(kernel_id, lambda: self._claim(kernel_id, forwarded))

    def _leader(self) -> Elsewhere:
        leader = self._authority.leader
        if leader is None or leader == self._member.proxy_id:
            raise Unavailable("no proxy leads the cluster right now; ask again", retry_after=0.5)
        return Elsewhere(leader)

    def lost_by(self, kernel_id: str, owner: str) -> bool:
        """``owner`` does not own the kernel any more, or may be replaced. The leader owns also
        what it has not claimed yet."""
        seen = self._view.owner(kernel_id)
        if self._authority.leader != owner and (seen is None or seen.proxy_id != owner):
            return True
        return self._peers.verdict(owner).allows

    def wanted(self, kernel_id: str) -> None:
        """Somebody waits for this kernel: if nobody owns it, claim it at once."""
        if self._member.holds and self._authority.may_own and self._view.owner(kernel_id) is None:
            self._take_later(kernel_id, soon=True)

    def created(self, kernel_id: str, claim_id: str, token: Token) -> None:
        """A start's first transaction has put our owner key with the record."""
        term = Term(claim_id).after(TermEvent.CLAIM_SENT)
        self._won(kernel_id, term, token, created=True)

    def acknowledged(self, kernel_id: str, token: Token) -> None:
        """Keeper and launcher have both acknowledged ``token``."""
        term = self._terms.get(kernel_id)
        if term is not None and term.state is TermState.CLAIMED and term.token == token:
            self._terms[kernel_id] = term.after(TermEvent.ACKNOWLEDGED)

    def overtaken(self, kernel_id: str, token: Token) -> None:
        """Evidence that ``token`` is not the highest any more (412, or a lost compare)."""
        term = self._terms.get(kernel_id)
        if term is not None and term.held and term.token == token:
            self._terms[kernel_id] = term.after(TermEvent.OVERTAKEN)
            # Given up with its kernel, in a drain or for a newer claim of our own: no trouble.
            expected = self._closing or self._is_gone(kernel_id) or self._is_newer(kernel_id, token)
            say = _log.debug if expected else _log.warning
            say("ownership lost", kernel=kernel_id, token=str(token))

    def _is_gone(self, kernel_id: str) -> bool:
        kernel = self._view.kernel(kernel_id)
        return kernel is None or isinstance(kernel.record, Tombstone)

    def _is_newer(self, kernel_id: str, token: Token) -> bool:
        """The owner key is ours, by a claim after the one that won ``token``."""
        owner = self._view.owner(kernel_id)
        me = self._member.proxy_id
        return owner is not None and owner.proxy_id == me and owner.revision > token.revision

    # --- claiming ---

    async def _claim(self, kernel_id: str, linearizable: bool) -> Token | Elsewhere:
        term = self._terms.get(kernel_id)
        if term is None or term.state is not TermState.CLAIMING:
            term = Term(secrets.token_hex(8))
        else:
            linearizable = True  # an earlier claim of ours has no known outcome
        seen = await self._seen(kernel_id) if linearizable else self._view.owner(kernel_id)
        for _ in range(4):
            verdict = None if seen is None else self._peers.verdict(seen.proxy_id)
            decision = decide_claim(
                me=self._member.proxy_id,
                claim_id=term.claim_id,
                seen=seen,
                era=self._member.era,
                verdict=verdict,
            )
            match decision:
                case Yield(owner):
                    if term.state is TermState.CLAIMING:
                        self._terms[kernel_id] = term.after(TermEvent.CLAIM_LOST)
                    return Elsewhere(owner)
                case Hold(token):
                    if term.state is TermState.NONE:
                        term = term.after(TermEvent.CLAIM_SENT)
                    return self._won(kernel_id, term, token)
                case Swap(observed):
                    term = term.after(TermEvent.CLAIM_SENT)
                    self._terms[kernel_id] = term
                    won = await self._swap(kernel_id, term.claim_id, observed)
                    if won is not None:
                        return self._won(kernel_id, term, won)
                    seen = await self._seen(kernel_id)
        raise Unavailable("the kernel's ownership is contested; try again")

    async def _swap(self, kernel_id: str, claim_id: str, observed: int) -> Token | None:
        """The claim's transaction; None when it was lost or its outcome is unknown."""
        key = self._keys.of(Kind.OWNER, kernel_id)
        value = OwnerRecord(proxy_id=self._member.proxy_id, claim_id=claim_id).encode()
        lease = self._member.lease_id
        try:
            result = await self._store.txn(
                [ModEquals(key, observed), self._member.compare, *self._authority.compares],
                [Put(key, value, lease)],
                timeout=_TIMEOUT,
            )
        except Unknown:
            return None
        except LeaseLost as error:
            raise Unavailable("this proxy has just lost its lease; try again") from error
        except StoreError as error:
            raise Unavailable(f"etcd does not answer: {error}") from error
        if not result.succeeded:
            return None
        self._view.apply(KeyValue(key, value, result.revision, result.revision, 1, lease))
        return Token(self._member.era, result.revision)

    async def _seen(self, kernel_id: str) -> SeenOwner | None:
        try:
            return await self._view.read_owner(kernel_id)
        except (StoreError, RecordError) as error:
            raise Unavailable(f"etcd does not say who owns the kernel: {error}") from error

    def _won(self, kernel_id: str, term: Term, token: Token, *, created: bool = False) -> Token:
        self._terms[kernel_id] = term.after(TermEvent.CLAIM_WON, token=token)
        _log.info("kernel owned", kernel=kernel_id, token=str(token), created=created)
        for listener in self._on_claimed:
            listener(kernel_id, token, created)
        return token

    # --- what the watch and the peers say ---

    def _changed(self, change: Change) -> None:
        if change.kind is Kind.PROXY and change.name == self._member.proxy_id:
            boot_id = None if change.after is None else change.after.record.boot_id
            self._member.registration_changed(change.revision, boot_id)
        if change.kind is Kind.CONFIG and change.after is not None:
            self._member.config_changed(change.after.record)
        if change.kind is not Kind.OWNER:
            return
        token = self.token(change.name)
        if token is not None and change.revision > token.revision:
            self.overtaken(change.name, token)
        if change.after is None and self._is_gone(change.name):
            self._terms.pop(change.name, None)
        elif change.after is None:
            now = asyncio.get_running_loop().time()
            self._freed_at = [t for t in self._freed_at if now - t < _BURST] + [now]
            self._take_later(change.name)

    def _suspected(self, proxy_id: str, verdict: Verdict) -> None:
        theirs = [n for n, e in self._view.owners.items() if e.record.proxy_id == proxy_id]
        _log.info("taking over", peer=proxy_id, kernels=len(theirs), because=verdict.value)
        for kernel_id in theirs:
            self._take_later(kernel_id)

    async def _rejoined(self) -> None:
        """After a new registration: what stands under a former lease of ours is claimed anew.

        By compare-and-swap only: held terms become doubtful here, because their keys vanish
        with the old lease, and whoever was quicker keeps what it took.
        """
        for kernel_id, entry in list(self._view.owners.items()):
            if entry.record.proxy_id == self._member.proxy_id and entry.lease != self._lease():
                term = self._terms.get(kernel_id)
                if term is not None and term.token is not None:
                    self.overtaken(kernel_id, term.token)
                self._take_later(kernel_id, soon=True)

    def _lease(self) -> int:
        return self._member.lease_id if self._member.holds else -1

    # --- takeover in the background ---

    async def run(self) -> None:
        """Look for kernels that nobody owns, for ever."""
        await self._view.wait_synced()
        while True:
            self._take_unowned()
            if self._member.holds and not self._authority.may_own:
                self._step_down()
            await asyncio.sleep(_SWEEP)

    def _take_unowned(self) -> None:
        if self._member.holds:
            for kernel_id in self._unowned():
                self._take_later(kernel_id)

    def _unowned(self) -> list[str]:
        if not self._authority.may_own:
            return []
        me = self._member.proxy_id
        names = []
        for kernel_id, entry in self._view.kernels.items():
            if isinstance(entry.record, Tombstone) or self.token(kernel_id) is not None:
                continue
            owner = self._view.owner(kernel_id)
            if owner is None or owner.proxy_id == me or self._peers.verdict(owner.proxy_id).allows:
                names.append(kernel_id)
        return names

    def _take_later(self, kernel_id: str, *, soon: bool = False) -> None:
        if self._closing or kernel_id in self._waiting:
            return
        self._waiting.add(kernel_id)
        self._tasks.spawn(self._take(kernel_id, soon), name=f"takeover {kernel_id}")

    async def _take(self, kernel_id: str, soon: bool) -> None:
        try:
            if not soon:
                await asyncio.sleep(self._delay(kernel_id))
            async with self._slots:
                if not self._closing and kernel_id in set(self._unowned()):
                    await self.ensure(kernel_id)
        except ProxyError as error:
            _log.debug("takeover waits", kernel=kernel_id, error=error.message)
        finally:
            self._waiting.discard(kernel_id)

    def _delay(self, kernel_id: str) -> float:
        return takeover_delay(
            kernel_id=kernel_id,
            me=self._member.proxy_id,
            live=self._peers.live() if self._authority.leader is None else (),
            freed=max(len(self._freed_at), len(self._waiting)),
            chance=random.random(),  # noqa: S311 (jitter)
        )

    # --- giving up ---

    def _step_down(self) -> None:
        """Another proxy leads: it takes living keys from nobody, so they are given to it. Asked
        again at each sweep, for what etcd did not delete, or wrote for a claim just under way."""
        for kernel_id, entry in self._view.owners.items():
            if entry.record.proxy_id == self._member.proxy_id:
                token = Token(self._member.era, entry.revision)
                self._releases.begin(kernel_id, partial(self._release, kernel_id, token))

    async def release(self, kernel_id: str, token: Token) -> None:
        """Give up one kernel that needs no owner. What fails expires with the lease."""
        await self._release(kernel_id, token)

    async def release_all(self) -> None:
        """For a drain: delete each owner key that is still ours. What fails expires."""
        self._closing = True
        held = {kernel_id: self.token(kernel_id) for kernel_id in self.owned()}
        await asyncio.gather(*(self._release(k, t) for k, t in held.items() if t is not None))

    async def _release(self, kernel_id: str, token: Token) -> None:
        key = self._keys.of(Kind.OWNER, kernel_id)
        async with self._slots:
            try:
                await self._store.txn(
                    [ModEquals(key, token.revision)], [Delete(key)], timeout=_TIMEOUT
                )
            except StoreError as error:
                _log.debug("an owner key stays until its lease ends", error=str(error))
        term = self._terms.get(kernel_id)
        if term is not None and term.held and term.token == token:
            self._terms[kernel_id] = term.after(TermEvent.RELEASED)
