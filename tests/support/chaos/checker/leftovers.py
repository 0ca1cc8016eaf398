"""At the end: one keeper and one kernel for each record, and nothing for what was deleted."""

from __future__ import annotations

from collections.abc import Iterator

from .story import Story
from .verdict import Violation


def check_leftovers(story: Story) -> Iterator[Violation]:
    end = story.when(story.ended.at) if story.ended else 0.0
    if story.began is None or story.ended is None or story.settled is None:
        yield Violation(end, "history", "the history is not whole")
        return
    yield from _quiet(story, end)
    for found in story.found:
        if found.phase == "emptied":
            what = f"{found.role} {found.pid} of {found.kernel[:8] or 'nobody'}"
            text = f"after every kernel was deleted there is {what}: {found.command[:80]}"
            yield Violation(end, "orphan", text)
    for listed in story.listed:
        if listed.phase == "emptied" and listed.kernels:
            text = f"proxy {listed.proxy} lists {len(listed.kernels)} deleted kernels"
            yield Violation(end, "record", text)


def _quiet(story: Story, end: float) -> Iterator[Violation]:
    lists = [set(listed.kernels) for listed in story.listed if listed.phase == "quiet"]
    if not lists:
        yield Violation(end, "history", "no proxy was asked for its kernels at the end")
        return
    records = lists[0]
    for n, other in enumerate(lists[1:], start=1):
        if other != records:
            text = f"proxies do not agree at the end: 0 has {len(records)} kernels, "
            yield Violation(end, "record", f"{text}{n} has {len(other)}")
    counted = next(listed.at for listed in story.listed if listed.phase == "quiet")
    deleted = {kernel for kernel, at in story.deleted.items() if at < counted}
    for kernel in story.started:
        if kernel not in deleted and kernel not in records:
            yield Violation(end, "alive", f"kernel {kernel[:8]} is gone; nobody deleted it")
    removed = {kernel for kernel, at in story.removed.items() if at < counted}
    for kernel in records & removed:
        yield Violation(end, "record", f"kernel {kernel[:8]} was deleted and is listed")
    yield from _processes(story, records, end)


def _processes(story: Story, records: set[str], end: float) -> Iterator[Violation]:
    found = [process for process in story.found if process.phase == "quiet"]
    for role in ("keeper", "kernel"):
        ids = [process.kernel for process in found if process.role == role]
        for kernel in records - set(ids):
            yield Violation(end, "record", f"kernel {kernel[:8]} is listed and has no {role}")
        for kernel in set(ids) - records:
            yield Violation(end, "orphan", f"a {role} of {kernel[:8]}, which is not listed")
        for kernel in {kernel for kernel in ids if ids.count(kernel) > 1}:
            yield Violation(end, "orphan", f"kernel {kernel[:8]} has more than one {role}")
    for process in found:
        if process.role == "stray":
            yield Violation(end, "orphan", f"process {process.pid}: {process.command[:100]}")
