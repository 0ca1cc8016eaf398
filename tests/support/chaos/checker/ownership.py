"""No call takes effect under a token below the highest that the same place has acknowledged."""

from __future__ import annotations

from collections.abc import Iterator

from support.chaos.history import Acted, Token

from .story import Story
from .verdict import Violation


def check_tokens(story: Story) -> Iterator[Violation]:
    """Keepers and launchers each by themselves: a claim has effect where it was acknowledged."""
    highest: dict[tuple[str, str], Token] = {}
    for event in sorted(story.tokens, key=lambda event: event.at):
        role = event.where.split(" ", maxsplit=1)[0]
        known = highest.get((role, event.kernel), (0, 0))
        if isinstance(event, Acted) and event.token < known:
            text = f"{event.call} of kernel {event.kernel[:8]} took effect at the {role} under "
            text += f"token {_show(event.token)} after {_show(known)} was acknowledged"
            yield Violation(story.when(event.at), "token", text)
        highest[role, event.kernel] = max(known, event.token)


def check_restarts(story: Story) -> Iterator[Violation]:
    """A restart that was asked for once takes effect at most once, and once when it was answered;
    a kernel's process changes for no other reason."""
    effects: dict[str, int] = {}
    for event in story.tokens:
        if isinstance(event, Acted) and event.call == "restart":
            effects[event.kernel] = effects.get(event.kernel, 0) + 1
    processes: dict[str, set[int]] = {}
    for run in story.runs:
        processes.setdefault(run.kernel, set()).add(run.pid)
    for kernel in story.started:
        calls = story.calls_of(kernel, "restart")
        done = effects.get(kernel, 0)
        answered = sum(1 for call in calls if call.status in (200, 201))
        at = story.when(calls[-1].called.at) if calls else 0.0
        if not answered <= done <= len(calls):
            text = f"kernel {kernel[:8]}: {done} restarts took effect, {len(calls)} were asked for"
            yield Violation(at, "once", f"{text}, {answered} answered")
        changes = len(processes.get(kernel, {0})) - 1
        if changes > len(calls):
            text = f"kernel {kernel[:8]} had {changes + 1} processes after {len(calls)} restarts"
            yield Violation(at, "alive", text)


def _show(token: Token) -> str:
    return f"{token[0]}.{token[1]}"
