"""The stream under whatever may happen to it, by Hypothesis. See ``stream_judge.CLAIMS``."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from simulation.conftest import profile
from simulation.stream_bugs import BUGS, Bug
from simulation.stream_judge import CLAIMS, Broken
from simulation.stream_machine import StreamStory

pytestmark = [pytest.mark.usefixtures("small_frames"), pytest.mark.timeout(900)]


def test_no_story_breaks_a_claim() -> None:
    run_state_machine_as_test(StreamStory, settings=profile(40, steps=60))


def test_every_claim_has_a_bug_that_breaks_it() -> None:
    assert {claim for bug in BUGS for claim in bug.claims} >= set(CLAIMS)


@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    with pytest.raises(Broken) as caught:
        run_state_machine_as_test(StreamStory, settings=profile(400, steps=60, shrink=False))
    assert str(caught.value).partition(":")[0] in bug.claims, caught.value
