"""Survivors leak no descriptors, and the memory of proxies and launchers stays flat.

A process is compared with itself over its later life, and at the end, when its kernels are gone,
with how such a process began. Bounds are wide: they are to find a leak, not to measure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from support.chaos.history import Sampled

from .story import Story
from .verdict import Violation

_MORE_FDS = 12
_MEMORY_SHARE, _MEMORY_BYTES = 1.25, 24 * 1024 * 1024
#: A life with fewer samples says nothing about growth.
_ENOUGH = 20


def check_resources(story: Story) -> Iterator[Violation]:
    lives: dict[tuple[str, int], list[Sampled]] = defaultdict(list)
    fresh: dict[str, int] = {}
    for sample in story.samples:
        lives[sample.process, sample.pid].append(sample)
        if sample.when == "before":
            fresh[sample.process] = sample.fds
    for (process, pid), samples in lives.items():
        last = samples[-1]
        bound = fresh.get(process, last.fds) + _MORE_FDS
        if last.when == "after" and last.fds > bound:
            text = f"{process} ({pid}) has {last.fds} descriptors with no kernel left, and began "
            yield Violation(story.when(last.at), "leak", f"{text}with {fresh[process]}")
        during = [sample.rss for sample in samples if sample.when == "during"]
        if len(during) >= _ENOUGH and not process.startswith("keeper"):
            yield from _flat(story, last, during)


def _flat(story: Story, last: Sampled, sizes: list[int]) -> Iterator[Violation]:
    quarter = len(sizes) // 4
    early, late = median(sizes[quarter : 2 * quarter]), median(sizes[-quarter:])
    if late > early * _MEMORY_SHARE + _MEMORY_BYTES:
        text = f"{last.process} ({last.pid}) grew from {early / 1e6:.0f} to {late / 1e6:.0f} MB"
        yield Violation(story.when(last.at), "memory", text)
