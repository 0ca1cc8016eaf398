"""A proxy hit at every await point of a start, a delete, a restart and a takeover, one by one.

An await point is where a task that works for the story gives control back: there the process is
killed or frozen, and what it had just sent is lost, arrives, or arrives when others have taken
over. In the end each record says what runs, and each kernel has a record.
"""

from __future__ import annotations

import pytest

from holdfast_proxy.config import Mode
from simulation.ownership_stories import Blow, Story, count_calls, count_points, disturbed, upset
from simulation.simulated_network import Fate, Lost

FATES = {
    "request lost": Fate(lost=Lost.REQUEST),
    "answer lost": Fate(lost=Lost.ANSWER),
    "connection reset after it acted": Fate(lost=Lost.RESET),
    "refused": Fate(lost=Lost.REFUSED),
    "8 s late": Fate(request=8.0),
    "answer 8 s late": Fate(answer=8.0),
    "doubled, 6 s later": Fate(again=6.0),
}
MODES = list(Mode)
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("blow", [Blow.KILL, Blow.KILL_UNSENT], ids=lambda blow: blow.name)
@pytest.mark.parametrize("story", [Story.START, Story.DELETE], ids=lambda story: story.name)
def test_a_proxy_killed_at_every_await_point(story: Story, blow: Blow) -> None:
    """Nobody asks again: the proxies alone have to bring it to an end."""
    points = count_points(story)
    print(f"\n{story.value}: {points} await points, each {blow.value}")
    assert points >= 5
    for point in range(1, points + 1):
        disturbed(story, point, blow, insist=False)


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("blow", list(Blow), ids=lambda blow: blow.name)
@pytest.mark.parametrize("story", list(Story), ids=lambda story: story.name)
def test_every_story_at_every_await_point(story: Story, blow: Blow, mode: Mode) -> None:
    """Once left alone, once with a client that asks again until it is told something final."""
    alone = blow is Blow.KILL_ONLY
    if alone and story in (Story.TAKEOVER, Story.FORWARDED_DELETE):
        pytest.skip("needs another proxy")
    points = count_points(story, alone=alone, mode=mode)
    slowest = 0.0
    for point in range(1, points + 1):
        for insist in (False, True) if story is not Story.TAKEOVER else (False,):
            took = disturbed(story, point, blow, insist=insist, mode=mode)
            slowest = max(slowest, took)
    print(f"\n{story.value}: {points} await points, {blow.value}: settled within {slowest:.0f} s")


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", FATES)
@pytest.mark.parametrize("story", list(Story), ids=lambda story: story.name)
def test_every_call_of_a_story_upset(story: Story, name: str, mode: Mode) -> None:
    calls = count_calls(story, mode=mode)
    assert calls >= 2
    print(f"\n{story.value}: each of {calls} calls: {name}")
    for number in range(1, calls + 1):
        upset(story, number, FATES[name], mode=mode)
