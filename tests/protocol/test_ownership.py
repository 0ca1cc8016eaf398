"""The ownership decisions: exhaustively where they are small, by Hypothesis where they are not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from holdfast_protocol.errors import InvalidState, RecordError
from holdfast_protocol.fencing import FENCE_MARGIN, Acknowledged, Lease, Token
from holdfast_protocol.ownership import (
    TAKE_NOW,
    TERM_TRANSITIONS,
    Hold,
    Peer,
    SeenOwner,
    Swap,
    Term,
    TermEvent,
    TermState,
    Verdict,
    Yield,
    decide_claim,
    may_take_over,
    takeover_delay,
)

numbers = st.integers(min_value=0, max_value=10**18)


# --- tokens and leases ---------------------------------------------------------------------------


@given(numbers, numbers, numbers, numbers)
def test_tokens_order_by_era_then_revision(era: int, rev: int, era2: int, rev2: int) -> None:
    assert (Token(era, rev) < Token(era2, rev2)) == ((era, rev) < (era2, rev2))


@given(numbers, numbers)
def test_a_token_survives_its_header(era: int, revision: int) -> None:
    token = Token(era, revision)
    assert Token.parse(str(token)) == token


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.",
        ".1",
        "1.2.3",
        "-1.2",
        "1.-2",
        "01.2",
        "1.02",
        " 1.2",
        "1.2\n",
        "\u0661.\u0662",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(RecordError):
        Token.parse(text)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(2, 10)), min_size=1, max_size=8))
def test_the_fence_is_the_latest_proven_and_never_goes_back(
    keepalives: list[tuple[float, float]],
) -> None:
    lease = Lease.granted(7, sent_at=0.0, ttl=5.0)
    latest = lease.fence_at
    for sent_at, ttl in keepalives:
        lease = lease.renewed(sent_at=sent_at, ttl=ttl)
        latest = max(latest, sent_at + ttl - FENCE_MARGIN)
        assert lease.fence_at == latest
    assert lease.holds(latest - 0.01)
    assert not lease.holds(latest)


@given(numbers, numbers)
def test_a_token_survives_its_file(era: int, revision: int) -> None:
    token = Token(era, revision)
    assert Token.from_list(token.as_list()) == token


@pytest.mark.parametrize("value", [None, [], [1], [1, 2, 3], [1, "2"], [1.0, 2], [-1, 2], "1.2"])
def test_what_is_no_token_in_a_file_is_refused(value: object) -> None:
    with pytest.raises(RecordError):
        Token.from_list(value)


@given(st.lists(st.builds(Token, st.integers(0, 2), st.integers(0, 5)), min_size=1))
def test_a_lower_token_is_never_acknowledged(offers: list[Token]) -> None:
    known = Acknowledged(Token(0, 0))
    for token in offers:
        before = known.token
        if token < before:
            with pytest.raises(InvalidState):
                known.offer(token)
        else:
            known = known.offer(token)
            assert known.token == token
        assert known.token >= before


# --- terms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), list(itertools.product(TermState, TermEvent)))
def test_terms_move_only_as_the_table_says(state: TermState, event: TermEvent) -> None:
    held = state in (TermState.CLAIMED, TermState.EFFECTIVE)
    term = Term("claim", state, Token(1, 5) if held else None)
    wanted = TERM_TRANSITIONS.get((state, event))
    if wanted is None:
        with pytest.raises(InvalidState):
            term.after(event, token=Token(1, 9))
        return
    after = term.after(event, token=Token(1, 9))
    assert after.state is wanted
    assert (after.token is not None) == after.held


def test_a_won_claim_without_a_token_is_a_bug() -> None:
    with pytest.raises(InvalidState):
        Term("c", TermState.CLAIMING).after(TermEvent.CLAIM_WON)


# --- claims --------------------------------------------------------------------------------------

OWNERS = [None, *(SeenOwner(p, c, 9) for p in ("me", "other") for c in ("claim", "older"))]


@pytest.mark.parametrize(("seen", "verdict"), list(itertools.product(OWNERS, [None, *Verdict])))
def test_every_claim(seen: SeenOwner | None, verdict: Verdict | None) -> None:
    claim = decide_claim(me="me", claim_id="claim", seen=seen, era=3, verdict=verdict)
    if seen is None:
        assert claim == Swap(0)
    elif seen.claim_id == "claim":
        assert claim == Hold(Token(3, 9))
    elif seen.proxy_id == "me" or verdict in TAKE_NOW:
        assert claim == Swap(9)
    else:
        assert claim == Yield("other")


# --- peers ---------------------------------------------------------------------------------------

PEER = Peer("a", "boot-1", 5)


def test_no_registration_means_a_lease_that_is_gone() -> None:
    assert may_take_over(None) is Verdict.GONE


def test_a_refusal_counts_only_where_we_had_been_connected() -> None:
    assert may_take_over(PEER.refused(1.0)) is Verdict.ALIVE
    assert may_take_over(PEER.answered("boot-1", 0.0).refused(1.0)) is Verdict.REFUSED


def test_another_boot_id_counts_at_once() -> None:
    assert may_take_over(PEER.answered("boot-2", 0.0)) is Verdict.REPLACED


def test_silence_proves_nothing() -> None:
    assert may_take_over(PEER.answered("boot-1", 0.0).silent()) is Verdict.ALIVE


def test_a_renewed_lease_turns_the_rule_off() -> None:
    peer = PEER.answered("boot-1", 0.0).refused(1.0)
    assert may_take_over(peer.observed_at(7.9, ttl=5.0)) is Verdict.REFUSED
    cleared = peer.observed_at(8.1, ttl=5.0)
    assert may_take_over(cleared) is Verdict.ALIVE
    assert may_take_over(cleared.refused(9.0)) is Verdict.ALIVE
    assert may_take_over(cleared.answered("boot-2", 9.0)) is Verdict.ALIVE


steps = st.lists(
    st.tuples(st.sampled_from(["same", "other", "refused", "silent", "look"]), st.floats(0.1, 4.0)),
    max_size=20,
)


@given(steps)
def test_peers_keep_their_invariants(events: list[tuple[str, float]]) -> None:
    peer, now = PEER, 0.0
    for event, passed in events:
        now += passed
        was_cleared = peer.cleared
        peer = peer.observed_at(now, ttl=5.0)
        match event:
            case "same":
                peer = peer.answered("boot-1", now)
            case "other":
                peer = peer.answered("boot-2", now)
            case "refused":
                peer = peer.refused(now)
            case "silent":
                peer = peer.silent()
        peer.check_invariants()
        if was_cleared:
            assert may_take_over(peer) is Verdict.ALIVE


@given(st.uuids(), st.integers(1, 6), st.integers(1, 500), st.floats(0, 0.999))
def test_exactly_one_proxy_claims_first(
    kernel: object, count: int, freed: int, chance: float
) -> None:
    live = [f"proxy-{number}" for number in range(count)]
    delays = [
        takeover_delay(kernel_id=str(kernel), me=me, live=live, freed=1, chance=chance)
        for me in live
    ]
    assert sorted(delays) == pytest.approx([number * 0.3 for number in range(count)])
    spread = takeover_delay(
        kernel_id=str(kernel), me=live[0], live=live, freed=freed, chance=chance
    )
    assert 0 <= spread <= count * 0.3 + 5.0


# --- all of it against a store that may lose answers ----------------------------------------------


class Claims(RuleBasedStateMachine):
    """Proxies claim one kernel in a store; answers get lost; leases end; a keeper fences.

    What must hold: of all calls that the keeper accepted, none bears a lower token than one that
    it acknowledged before, and two proxies never believe in the same token.
    """

    @initialize()
    def set_up(self) -> None:
        self.revision = 1
        self.owner: SeenOwner | None = None
        self.terms = {name: Term(f"{name}-0") for name in ("a", "b", "c")}
        self.seen: dict[str, SeenOwner | None] = dict.fromkeys(self.terms)
        self.claims = 0
        self.keeper = Acknowledged(Token(0, 0))
        self.accepted: list[tuple[str, Token]] = []

    @rule(me=st.sampled_from("abc"))
    def look(self, me: str) -> None:
        self.seen[me] = self.owner

    @rule(
        me=st.sampled_from("abc"),
        verdict=st.sampled_from(list(Verdict)),
        lost=st.sampled_from(["no", "request", "answer"]),
    )
    def claim(self, me: str, verdict: Verdict, lost: str) -> None:
        term = self.terms[me]
        if term.held:
            return
        if term.state is not TermState.CLAIMING:
            self.claims += 1
            term = Term(f"{me}-{self.claims}")
        else:
            self.seen[me] = self.owner  # an unknown outcome is read before it is tried again
        decision = decide_claim(
            me=me, claim_id=term.claim_id, seen=self.seen[me], era=1, verdict=verdict
        )
        match decision:
            case Hold(token):
                term = term.after(TermEvent.CLAIM_WON, token=token)
            case Yield():
                if term.state is TermState.CLAIMING:
                    term = term.after(TermEvent.CLAIM_LOST)
            case Swap(observed):
                term = term.after(TermEvent.CLAIM_SENT)
                now = 0 if self.owner is None else self.owner.revision
                if lost != "request" and now == observed:
                    self.revision += 1
                    self.owner = SeenOwner(me, term.claim_id, self.revision)
                    if lost == "no":
                        token = Token(1, self.revision)
                        term = term.after(TermEvent.CLAIM_WON, token=token)
                elif lost == "no":
                    term = term.after(TermEvent.CLAIM_LOST)
        self.terms[me] = term

    @rule()
    def lease_ends(self) -> None:
        self.revision += 1
        self.owner = None

    @rule(me=st.sampled_from("abc"))
    def told_of_loss(self, me: str) -> None:
        term = self.terms[me]
        if term.held and (self.owner is None or Token(1, self.owner.revision) != term.token):
            self.terms[me] = term.after(TermEvent.OVERTAKEN)

    @rule(me=st.sampled_from("abc"))
    def act(self, me: str) -> None:
        token = self.terms[me].token
        if token is not None and token >= self.keeper.token:
            self.keeper = self.keeper.offer(token)
            self.accepted.append((me, token))

    @invariant()
    def what_was_accepted_rises(self) -> None:
        tokens = [token for _, token in self.accepted]
        assert tokens == sorted(tokens)

    @invariant()
    def a_token_is_one_proxys(self) -> None:
        held = [term.token for term in self.terms.values() if term.token is not None]
        assert len(held) == len(set(held))
        owners: dict[Token, str] = {}
        for me, token in self.accepted:
            assert owners.setdefault(token, me) == me


Claims.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestClaims = Claims.TestCase
