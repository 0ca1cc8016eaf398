"""When `holdfast demo` kills, and whom."""

from __future__ import annotations

from itertools import pairwise

import pytest

from holdfast_proxy.cli.demo.schedule import QUIET_END, Wait, choose_target, kill_times


def test_regular_kills_leave_the_end_quiet() -> None:
    assert kill_times(seconds=60, every=5, seed=None) == tuple(range(5, 56, 5))
    assert kill_times(seconds=12, every=3, seed=None) == (3, 6, 9)


@pytest.mark.parametrize("seconds", [6.0, 7.4, 30.0, 61.0])
def test_no_kill_comes_in_the_quiet_end(seconds: float) -> None:
    for seed in (None, 0, 1, 2):
        assert all(
            at <= seconds - QUIET_END for at in kill_times(seconds=seconds, every=2, seed=seed)
        )


def test_a_seed_gives_irregular_pauses_and_the_same_ones_again() -> None:
    times = kill_times(seconds=120, every=4, seed=7)
    assert times == kill_times(seconds=120, every=4, seed=7)
    assert times != kill_times(seconds=120, every=4, seed=8)
    pauses = [late - early for early, late in pairwise((0.0, *times))]
    assert all(2.0 <= pause <= 6.0 for pause in pauses)
    assert max(pauses) - min(pauses) > 1.0


def test_too_short_a_run_has_no_kill() -> None:
    assert kill_times(seconds=7, every=5, seed=None) == ()


TWO = {"proxy-1", "proxy-2"}


def test_the_carrier_is_killed_when_another_is_ready() -> None:
    assert choose_target(members=TWO, carriers={"proxy-2"}, ready=TWO) == "proxy-2"
    assert choose_target(members=TWO, carriers={"proxy-2"}, ready={"proxy-1"}) == "proxy-2"


def test_nobody_is_killed_while_it_would_tell_nothing() -> None:
    assert choose_target(members=TWO, carriers={"proxy-2"}, ready={"proxy-2"}) is Wait.NO_SPARE
    assert choose_target(members=TWO, carriers=TWO, ready=TWO) is Wait.NO_CARRIER
    assert choose_target(members=TWO, carriers=(), ready=TWO) is Wait.NO_CARRIER


def test_a_single_member_is_killed_when_it_carries() -> None:
    only = {"kernel-gateway"}
    assert choose_target(members=only, carriers=only, ready=only) == "kernel-gateway"
    assert choose_target(members=only, carriers=only, ready=()) is Wait.NOT_READY
    assert choose_target(members=only, carriers=(), ready=only) is Wait.NOT_READY
