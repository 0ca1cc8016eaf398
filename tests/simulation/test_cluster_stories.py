"""Several faults at a time on a simulated cluster. See ``ownership_judge.CLAIMS``."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from simulation.conftest import profile
from simulation.ownership_bugs import BUGS
from simulation.ownership_judge import Broken
from simulation.ownership_machine import ClusterStory

pytestmark = pytest.mark.timeout(3000)


def test_a_few_stories_break_no_claim() -> None:
    run_state_machine_as_test(ClusterStory, settings=profile(4, steps=20))


@pytest.mark.long
def test_no_story_breaks_a_claim() -> None:
    run_state_machine_as_test(ClusterStory, settings=profile(100, steps=40))


@pytest.mark.long
@pytest.mark.parametrize("name", ["no fences", "nobody resumes", "tombstone first"])
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without being told where to look."""
    bug = next(bug for bug in BUGS if bug.name == name)
    bug.plant(monkeypatch)
    with pytest.raises(Broken, match=bug.claim):
        run_state_machine_as_test(ClusterStory, settings=profile(100, steps=40, shrink=False))
