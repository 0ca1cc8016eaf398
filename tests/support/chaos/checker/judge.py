"""The whole judgement. Pure: the same events have the same verdict."""

from __future__ import annotations

from collections.abc import Iterable

from support.chaos.history import Event

from .answers import check_answers
from .cells import check_cells
from .figures import figures
from .leftovers import check_leftovers
from .ownership import check_restarts, check_tokens
from .repeats import check_repeats
from .resources import check_resources
from .story import Story
from .verdict import Verdict

_RULES = (
    check_cells,
    check_repeats,
    check_tokens,
    check_restarts,
    check_answers,
    check_leftovers,
    check_resources,
)


def judge(events: Iterable[Event]) -> Verdict:
    """Every rule over one history, side files and traces included."""
    story = Story(events)
    violations = [violation for rule in _RULES for violation in rule(story)]
    return Verdict(tuple(sorted(violations)), figures(story))
