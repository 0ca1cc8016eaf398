"""The stream under whatever may happen to it, by Hypothesis. See ``stream_judge.CLAIMS``."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from simulation.conftest import profile
from simulation.stream_machine import StreamStory


@pytest.mark.usefixtures("small_frames")
def test_no_story_breaks_a_claim() -> None:
    run_state_machine_as_test(StreamStory, settings=profile(60, steps=60))
