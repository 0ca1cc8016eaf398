"""Counts and times of a run, for its table."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

from support.figures import percentile

from .cells import is_marked
from .repeats import repeated
from .story import Session, Story

#: Faults after which a stream must find another way.
_FAILOVERS = ("proxy-kill", "proxy-term", "line-reset", "line-cut")
_LONG_FAILOVERS = ("proxy-stop", "line-deaf", "line-mute", "hole-both", "hole-one-way")


def figures(story: Story) -> dict[str, str]:
    """In the order in which they are shown."""
    kinds = Counter(fault.kind for fault in story.faults)
    return {
        "seed": str(story.began.seed) if story.began else "?",
        "seconds": f"{story.began.seconds:.0f}" if story.began else "?",
        "faults": f"{len(story.faults)}: " + ", ".join(f"{k} {n}" for k, n in kinds.most_common()),
        "sessions": _by_client(story),
        "cells": f"{story.cells} sent, {len(story.runs)} ran, {_answered(story)} answered",
        "lines": str(_lines(story)),
        "rest calls": _calls(story),
        "failovers": _times(story, _FAILOVERS),
        "frozen, cut off": _times(story, _LONG_FAILOVERS),
        "cells with a gap": str(_gaps(story)),
        "never sent": str(sum(len(s.unsent) for s in story.sessions.values())) + " (plain clients)",
        "repeated": f"{sum(repeated(s) for s in story.sessions.values())} messages (plain clients)",
        "tokens": f"{len(story.tokens)} acknowledged or acted under",
        "memory": _memory(story),
    }


def _by_client(story: Story) -> str:
    counts = Counter(session.client for session in story.sessions.values())
    return ", ".join(f"{n} {client}" for client, n in sorted(counts.items()))


def _answered(story: Story) -> int:
    return sum(
        any(event.kind == "execute_reply" for event in session.answers.get(msg_id, ()))
        for session in story.sessions.values()
        for msg_id in session.sent
    )


def _lines(story: Story) -> int:
    return sum(
        event.text.count("\n")
        for session in story.sessions.values()
        for answers in session.answers.values()
        for event in answers
        if event.stream == "stdout"
    )


def _gaps(story: Story) -> int:
    return sum(
        is_marked(answers)
        for session in story.sessions.values()
        for answers in session.answers.values()
    )


def _calls(story: Story) -> str:
    actions = Counter(rest.called.action for rest in story.calls)
    statuses = Counter(rest.status for rest in story.calls)
    said = ", ".join(f"{n} {action}" for action, n in actions.most_common())
    return f"{said}; answers " + ", ".join(f"{n} of {code}" for code, n in statuses.most_common())


def _times(story: Story, kinds: tuple[str, ...]) -> str:
    """Silences that began at a fault on the proxy that carried a session in mid-cell."""
    waits = []
    for fault in story.faults:
        if fault.kind in kinds:
            for name in fault.carried:
                silence = _silence(story.sessions.get(name), fault.at)
                if silence is not None:
                    waits.append(silence)
    if not waits:
        return "none in mid-cell"
    shown = f"p50 {percentile(waits, 0.5) * 1000:.0f} ms"
    if len(waits) >= 100:
        shown += f", p99 {percentile(waits, 0.99) * 1000:.0f} ms"
    return f"{shown}, max {max(waits) * 1000:.0f} ms of {len(waits)} in mid-cell"


def _silence(session: Session | None, at: float) -> float | None:
    """From the last message before ``at`` to the first after it; None: no cell was printing."""
    if session is None:
        return None
    messages = session.received
    times = [message.at for message in messages]
    place = bisect_right(times, at)
    if not 0 < place < len(times):
        return None
    before, after = messages[place - 1], messages[place]
    if before.stream != "stdout" or after.stream != "stdout" or before.parent != after.parent:
        return None
    return after.at - before.at


def _memory(story: Story) -> str:
    largest: dict[str, int] = {}
    for sample in story.samples:
        role = sample.process.split("-", maxsplit=1)[0]
        largest[role] = max(largest.get(role, 0), sample.rss)
    return ", ".join(f"{role} ≤ {rss / 1e6:.0f} MB" for role, rss in sorted(largest.items()))
