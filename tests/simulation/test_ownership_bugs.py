"""Each claim about ownership is broken by a bug that the stories find."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from simulation.ownership_bugs import BUGS, Bug
from simulation.ownership_judge import Broken
from simulation.ownership_stories import NoSuchPoint, count_points, disturbed


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """At one await point at least; without the bug, no point shows anything."""
    points = count_points(bug.story)
    bug.plant(monkeypatch)
    said = _complaint(lambda: count_points(bug.story))
    for point in range(1, points + 1):
        if f"{bug.claim}: " in said:
            return
        said += _complaint(lambda at=point: disturbed(bug.story, at, bug.blow, insist=False))
    assert f"{bug.claim}: " in said, said


def _complaint(play: Callable[[], object]) -> str:
    # With its bug a story may have fewer points, which is no complaint.
    with contextlib.suppress(NoSuchPoint):
        try:
            play()
        except Broken as broken:
            return str(broken)
    return ""
