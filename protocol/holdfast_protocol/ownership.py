"""Who owns a kernel: claims, terms and takeover, decided purely and answered as typed values.

No I/O, no clock, no store: the caller passes in what it saw and when (CLOCK_BOOTTIME seconds)
and does what the answer says. Byte streams never ask here: ownership decides only who may start,
restart, delete, cull, reconcile and write a kernel's record.

Safety rests on three things, each sufficient where the others are late:

1. an owner key changes only by a transaction that compares its revision (one winner per term);
2. the winner's token is that transaction's revision, hence higher than any before, and keepers
   and launchers refuse lower ones once it was shown to them;
3. an owner stops by itself at its lease's ``fence_at``.

So "may I take over?" (``may_take_over``) is a question of good manners and speed, never of
safety: a wrong yes costs the old owner its term and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from holdfast_protocol.errors import InvalidState
from holdfast_protocol.fencing import Token

# --- one proxy's term as owner of one kernel -------------------------------------------------


class TermState(Enum):
    """How far a proxy's ownership of one kernel has got."""

    NONE = "none"
    CLAIMING = "claiming"  # a transaction was sent; its outcome is not known
    CLAIMED = "claimed"  # won; keeper and launcher have not both seen the token
    EFFECTIVE = "effective"  # both have acknowledged it: nobody older can act any more
    LOST = "lost"  # somebody else's key, or a higher token, was seen


class TermEvent(Enum):
    CLAIM_SENT = "claim sent"
    CLAIM_WON = "claim won"
    CLAIM_LOST = "claim lost"
    ACKNOWLEDGED = "acknowledged"  # by keeper and launcher
    OVERTAKEN = "overtaken"  # another's owner key, no owner key, or a 412
    RELEASED = "released"  # our own compare-and-swap delete


_T, _X = TermState, TermEvent

TERM_TRANSITIONS: Mapping[tuple[TermState, TermEvent], TermState] = {
    (_T.NONE, _X.CLAIM_SENT): _T.CLAIMING,
    (_T.LOST, _X.CLAIM_SENT): _T.CLAIMING,
    (_T.CLAIMING, _X.CLAIM_SENT): _T.CLAIMING,  # unknown outcome: read, then compare again
    (_T.CLAIMING, _X.CLAIM_WON): _T.CLAIMED,
    (_T.CLAIMING, _X.CLAIM_LOST): _T.LOST,
    (_T.CLAIMED, _X.ACKNOWLEDGED): _T.EFFECTIVE,
    (_T.CLAIMED, _X.OVERTAKEN): _T.LOST,
    (_T.EFFECTIVE, _X.OVERTAKEN): _T.LOST,
    (_T.CLAIMED, _X.RELEASED): _T.NONE,
    (_T.EFFECTIVE, _X.RELEASED): _T.NONE,
}


@dataclass(frozen=True, slots=True)
class Term:
    """One proxy's ownership of one kernel from claim to loss. ``token`` is None until won."""

    claim_id: str
    state: TermState = TermState.NONE
    token: Token | None = None

    def after(self, event: TermEvent, *, token: Token | None = None) -> Term:
        """Raises InvalidState when there is no such transition."""
        state = TERM_TRANSITIONS.get((self.state, event))
        if state is None:
            raise InvalidState(f"a term that is {self.state.value} has no {event.value!r}")
        held = token if event is TermEvent.CLAIM_WON else self.token
        result = replace(self, state=state, token=held if state in HOLDING else None)
        result.check_invariants()
        return result

    @property
    def held(self) -> bool:
        """We won and have not seen that we lost."""
        return self.state in HOLDING

    def check_invariants(self) -> None:
        """A token exists exactly while the term is held: nothing acts with a lost one's."""
        if (self.token is not None) != self.held:
            raise InvalidState(f"term {self.state.value} with token {self.token}")


HOLDING = frozenset({TermState.CLAIMED, TermState.EFFECTIVE})

# --- the claim -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeenOwner:
    """An owner key as it was read: its content and the revision that wrote it."""

    proxy_id: str
    claim_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class Hold:
    """The key is this term's already, with this token: nothing to write."""

    token: Token


@dataclass(frozen=True, slots=True)
class Swap:
    """Put the owner key where it is still at ``observed`` (0: where it is absent)."""

    observed: int


@dataclass(frozen=True, slots=True)
class Yield:
    """Another proxy owns it and may not be replaced: pass the request on, or wait."""

    owner: str


Claim = Hold | Swap | Yield


def decide_claim(
    *, me: str, claim_id: str, seen: SeenOwner | None, era: int, verdict: Verdict | None = None
) -> Claim:
    """What to do for a claim. ``seen``: the owner key by a linearizable read or a watch.

    A key with our claim id means that a transaction whose answer we never got was won: it is
    adopted with the revision that it has. A key with our proxy id and another claim id is left
    from a former process or a former lease of ours; nobody else can be meant, so it is swapped.

    Invariant: ``Swap.observed`` is exactly what was seen, so of all who saw the same only one
    transaction can win, and a late one of ours cannot undo a newer owner's.
    """
    if seen is None:
        return Swap(0)
    if seen.claim_id == claim_id:
        return Hold(Token(era, seen.revision))
    if seen.proxy_id == me or verdict in TAKE_NOW:
        return Swap(seen.revision)
    return Yield(seen.proxy_id)


# --- when another proxy's kernels may be taken -----------------------------------------------


class Verdict(Enum):
    """Whether the kernels of a peer may be claimed, and by which rule."""

    GONE = "its lease is gone"
    REPLACED = "another process answers at its address"
    REFUSED = "its port refuses connections"
    ALIVE = "it holds its lease"

    @property
    def allows(self) -> bool:
        return self in TAKE_NOW


TAKE_NOW = frozenset({Verdict.GONE, Verdict.REPLACED, Verdict.REFUSED})


@dataclass(frozen=True, slots=True)
class Peer:
    """What this proxy knows of another one within one registration (``term``: the revision of
    its ``proxies/`` key; a new one begins with nothing known).

    ``connected``: we ourselves had an answer with the registered boot id at this address within
    this term: without that, a refusal may be a firewall, or an address that we never could reach.
    ``suspect``: the evidence, ``suspected_at`` when it was seen. ``cleared``: the lease was
    renewed after the evidence, so it was wrong, and that rule is off until the next term.
    """

    proxy_id: str
    boot_id: str
    term: int
    connected: bool = False
    suspect: Verdict | None = None
    suspected_at: float = 0.0
    cleared: bool = False

    def answered(self, boot_id: str, now: float) -> Peer:
        """Its address answered as ``boot_id``."""
        if boot_id == self.boot_id:
            return replace(self, connected=True, suspect=None)
        return self._suspected(Verdict.REPLACED, now)

    def refused(self, now: float) -> Peer:
        """Its address refused the connection (RST), as opposed to silence."""
        return self._suspected(Verdict.REFUSED, now) if self.connected else self

    def silent(self) -> Peer:
        """No answer in time: proves nothing; a paused machine and a lost route look the same."""
        return self

    def observed_at(self, now: float, *, ttl: float) -> Peer:
        """Its registration still stands at ``now``: longer after the evidence than a lease lives
        without renewal (``ttl`` and the margin of two seconds), it was renewed since."""
        if self.suspect is not None and now > self.suspected_at + ttl + 2.0:
            return replace(self, suspect=None, cleared=True)
        return self

    def _suspected(self, verdict: Verdict, now: float) -> Peer:
        if self.cleared:
            return self
        since = now if self.suspect is None else self.suspected_at
        return replace(self, suspect=verdict, suspected_at=since)

    def check_invariants(self) -> None:
        if self.suspect is Verdict.REFUSED and not self.connected:
            raise InvalidState("a refusal counts only at an address that had answered before")
        if self.cleared and self.suspect is not None:
            raise InvalidState("a cleared peer has no evidence against it")


def may_take_over(peer: Peer | None) -> Verdict:
    """May we claim what ``peer`` owns? None: it has no registration, so its lease is gone."""
    if peer is None:
        return Verdict.GONE
    return peer.suspect or Verdict.ALIVE


def takeover_delay(
    *, kernel_id: str, me: str, live: Sequence[str], freed: int, chance: float
) -> float:
    """Seconds to wait before claiming a kernel that nobody asked for. Pure.

    Rendezvous hashing ranks the live proxies for each kernel: the first claims at once, each
    next one 0.3 s later, so that kernels spread over the proxies and most claims meet no rival.
    After a mass expiry (``freed`` keys at once) claims spread by 10 ms a kernel, up to 5 s, by
    ``chance`` (0 ≤ chance < 1).
    """
    ranked = sorted(set(live) | {me}, key=lambda proxy: _rank(kernel_id, proxy), reverse=True)
    spread = 0.0 if freed <= 16 else min(5.0, freed * 0.01)
    return ranked.index(me) * 0.3 + chance * spread


def _rank(kernel_id: str, proxy_id: str) -> bytes:
    return hashlib.sha256(f"{proxy_id}\0{kernel_id}".encode()).digest()
