"""The stream under whatever may happen to it, by Hypothesis. See ``stream_judge.CLAIMS``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis.stateful import run_state_machine_as_test

from simulation.conftest import profile
from simulation.stream_bugs import BUGS, Bug
from simulation.stream_judge import CLAIMS, Broken
from simulation.stream_kernel import LOG_BYTES
from simulation.stream_machine import StreamStory
from simulation.stream_world import StreamWorld

pytestmark = [pytest.mark.usefixtures("small_frames"), pytest.mark.timeout(900)]


def test_no_story_breaks_a_claim() -> None:
    run_state_machine_as_test(StreamStory, settings=profile(30, steps=60))


def test_every_claim_has_a_bug_that_breaks_it() -> None:
    assert {claim for bug in BUGS for claim in bug.claims} >= set(CLAIMS)


@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    with pytest.raises(Broken) as caught:
        run_state_machine_as_test(StreamStory, settings=profile(400, steps=60, shrink=False))
    assert str(caught.value).partition(":")[0] in bug.claims, caught.value


@pytest.mark.xfail(
    raises=Broken,
    strict=True,
    reason="a client id that the keeper has never seen always gets the session, a dead one's too",
)
def test_a_ghost_takes_no_session(tmp_path: Path) -> None:
    """A shim dials by a proxy that freezes, and is killed; the next one is served by another
    proxy. When the first proxy goes on, the dead shim's RESUME arrives: its client id is new to the
    keeper, so the living client is sent away for good."""
    world = StreamWorld(tmp_path)
    world.ghosts = True
    world.dial()
    ghost = world.wire
    assert ghost is not None
    world.shim_dies(remembers=False)
    world.flow(rounds=2)
    world.keeper_reads(ghost, len(ghost.up))
    world.settle()


def test_a_reply_that_a_dead_connection_took_is_replaced(tmp_path: Path) -> None:
    """It was written, it left the log, and the gap was told to the dead connection, all before
    anybody noticed that the connection was dead. Found by ``test_no_story_breaks_a_claim``."""
    world = StreamWorld(tmp_path)
    world.flow(rounds=2)
    world.client_sends(10)
    world.flow(rounds=2)
    wire = world.wire
    assert wire is not None
    wire.cut(0, 0)
    world.kernel_answers()
    world.keeper_writes(wire)
    for _ in range(4):
        world.kernel_says(20_000)
    world.keeper_writes(wire)
    world.settle()
    assert world.judge.replied["1-1"] == 1


def test_a_gap_that_its_own_notices_make_longer_is_shown_whole(tmp_path: Path) -> None:
    """The notices of a gap push more out of a full log, a reply among it. Found by
    ``test_no_story_breaks_a_claim``."""
    world = StreamWorld(tmp_path)
    world.flow(rounds=2)
    for _ in range(6):
        world.client_sends(10)
    world.flow(rounds=2)
    index = world.keeper.journal.index
    world.client_notices()
    world.kernel_says(8_000)
    world.kernel_answers()
    answered, floor = index.head, index.floor
    while index.floor == floor or index.size < LOG_BYTES - 600:
        world.kernel_says(300)
    assert index.floor < answered - 1, "the reply is still there"
    world.flow(rounds=2)
    world.settle()
    assert index.floor > answered
    assert world.judge.replied["1-1"] == 1
