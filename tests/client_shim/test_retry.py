"""How often a notebook server may try: decisions with a given clock and a given random source."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_client_shim.gateway import retry
from holdfast_client_shim.gateway.retry import RetryBudget, RetryPolicy, Turns, full_jitter

POLICY = RetryPolicy(first_wait=0.1, longest_wait=2.0, tokens=10, tokens_per_second=4)


def longest(low: float, high: float) -> float:
    return high


def shortest(low: float, high: float) -> float:
    return low


def test_the_bound_of_a_wait_doubles_up_to_the_longest() -> None:
    bounds = [full_jitter(POLICY, n, asked=0.0, pick=longest) for n in range(1, 8)]
    assert bounds == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    assert full_jitter(POLICY, 100_000, asked=0.0, pick=longest) == 2.0
    assert full_jitter(POLICY, 5, asked=0.0, pick=shortest) == 0.0, "full: from nothing on"


def test_what_a_gateway_asked_for_is_waited_besides_the_jitter() -> None:
    """Everybody was told the same; with the larger of both all would come at one moment."""
    assert full_jitter(POLICY, 3, asked=5.0, pick=shortest) == 5.0
    assert full_jitter(POLICY, 3, asked=5.0, pick=longest) == pytest.approx(5.4)


def test_a_crowd_that_finds_nobody_retries_at_the_rate_of_the_budget() -> None:
    budget = RetryBudget(POLICY)
    allowed = [moment for moment in range(1000) if budget.spend(moment / 100)]
    assert len(allowed) == pytest.approx(10 + 4 * 10, abs=1), "ten seconds, asked 100 times each"
    assert allowed[:10] == list(range(10)), "first what was saved"


def test_a_gateway_that_is_back_opens_the_budget() -> None:
    budget = RetryBudget(POLICY)
    while budget.spend(0.0):
        pass
    dials, under_way = 0, 1
    while under_way and dials < 200:  # each good dial lets two more go, in no time at all
        under_way -= 1
        dials += 1
        budget.earn(0.0)
        while under_way < 50 and budget.spend(0.0):
            under_way += 1
    assert dials == 200


@given(
    st.lists(
        st.tuples(st.sampled_from(["spend", "earn"]), st.floats(0.0, 3.0)), min_size=1, max_size=80
    )
)
def test_never_more_than_was_saved_and_earned(steps: list[tuple[str, float]]) -> None:
    budget, now, spent, earned = RetryBudget(POLICY), 100.0, 0, 0.0
    for step, wait in steps:
        now += wait
        if step == "earn":
            budget.earn(now)
            earned += retry.EARNED
        else:
            spent += budget.spend(now)
        assert 0 <= budget.left(now) <= POLICY.tokens
        assert spent <= POLICY.tokens + earned + (now - 100.0) * POLICY.tokens_per_second + 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_wait": 0.0},
        {"first_wait": 3.0, "longest_wait": 2.0},
        {"tokens": 0.5},
        {"tokens_per_second": 0.0},
        {"dials_at_once": 0},
    ],
)
def test_a_policy_that_would_never_try_again_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"needed|above 0|tried again"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]  # dials_at_once is the only int


async def test_turns_are_bounded_and_given_back() -> None:
    turns, inside, most = Turns(3), 0, 0

    async def dial() -> None:
        nonlocal inside, most
        async with turns.take():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    async with asyncio.timeout(30):
        await asyncio.gather(*(dial() for _ in range(50)))
    assert (most, turns.waiting) == (3, 0)


async def test_a_dial_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "TURN_SECONDS", 0.01)
    turns, never = Turns(1), asyncio.Event()

    async def hang() -> None:
        async with turns.take():
            await never.wait()

    hanging = asyncio.create_task(hang())
    await asyncio.sleep(0)
    async with asyncio.timeout(30), turns.take():
        pass
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    async with asyncio.timeout(30), turns.take():
        assert turns.waiting == 0
    assert turns._free._value == 1, "what ran out was not given back twice"


async def test_who_stops_waiting_takes_no_turn_with_it() -> None:
    turns = Turns(1)

    async def wait() -> None:
        async with turns.take():
            raise AssertionError("it was not its turn")

    async with turns.take():
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert turns.waiting == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(30), turns.take():
        assert turns.waiting == 0
