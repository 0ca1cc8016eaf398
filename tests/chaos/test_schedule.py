"""A seed has one schedule, which keeps its bounds."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.chaos.schedule import Fault, Kind, plan

SEEDS = st.integers(min_value=0, max_value=1 << 31)
FEW = settings(max_examples=6, deadline=None, derandomize=True, database=None)
LENGTHS = st.floats(min_value=20, max_value=300)
#: Faults that make one proxy unreachable.
IMPAIRING = {
    Kind.PROXY_KILL,
    Kind.PROXY_TERM,
    Kind.PROXY_STOP,
    Kind.LINE_DEAF,
    Kind.LINE_MUTE,
    Kind.HOLE_BOTH,
    Kind.HOLE_ONE_WAY,
}


def overlapping(faults: list[Fault], at: float) -> list[Fault]:
    return [fault for fault in faults if fault.at <= at < fault.ends]


@FEW
@given(seed=SEEDS, seconds=LENGTHS)
def test_a_seed_has_one_schedule(seed: int, seconds: float) -> None:
    faults = plan(seed, seconds)
    assert faults == plan(seed, seconds)
    assert all(early.at <= late.at for early, late in pairwise(faults))
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
    assert all(fault.ends <= seconds for fault in faults)


@FEW
@given(seed=SEEDS, seconds=LENGTHS)
def test_one_proxy_stays_but_when_all_are_meant(seed: int, seconds: float) -> None:
    faults = plan(seed, seconds)
    for fault in faults:
        now = overlapping(faults, fault.at)
        hit = {one.target for one in now if one.kind in IMPAIRING}
        assert len(hit) <= 2
        assert len([one for one in now if one.kind.value.startswith("etcd")]) <= 1
        if any(one.kind in (Kind.PROXY_ALL_KILL, Kind.PROXY_ROLL) for one in now):
            assert not hit


@FEW
@given(seed=SEEDS)
def test_no_keeper_is_killed_oftener_than_its_launcher_replaces_it(seed: int) -> None:
    kills = Counter(f.target for f in plan(seed, 600) if f.kind is Kind.KEEPER_KILL)
    assert max(kills.values(), default=0) <= 2


def test_other_seeds_have_other_schedules() -> None:
    assert plan(1, 300) != plan(2, 300)


def test_five_minutes_have_seen_every_kind() -> None:
    """Each kind is in the deck, so no seed leaves one out for long."""
    seen = {fault.kind for seed in range(3) for fault in plan(seed, 300)}
    assert seen == set(Kind)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_kind_alone(kind: Kind) -> None:
    faults = plan(1, 60, only=frozenset({kind}))
    assert faults
    assert {fault.kind for fault in faults} == {kind}
