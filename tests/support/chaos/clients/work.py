"""What a client does next, drawn from its own seeded source."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: Lines, more characters in each, seconds between two.
Shape = tuple[int, int, float]
_USUAL: tuple[Shape, ...] = ((3, 0, 0.0), (20, 0, 0.01), (60, 0, 0.02), (150, 0, 0.01))
#: More than the memory of a log on the small disk holds, when nobody reads.
_BURST: Shape = (300, 2000, 0.002)


@dataclass(frozen=True, slots=True)
class Work:
    """Cells sent at once; ``act``: a REST call ``after`` seconds, or None."""

    cells: tuple[Shape, ...]
    act: str | None
    after: float


def draw_work(draw: random.Random) -> Work:
    """Mostly cells; sometimes a restart, an interrupt or a delete in the middle of them."""
    cells = tuple(
        _BURST if draw.random() < 0.06 else draw.choice(_USUAL) for _ in range(draw.randint(1, 3))
    )
    chance = draw.random()
    act = None
    if chance < 0.02:
        act = "delete"
    elif chance < 0.06:
        act = "restart"
    elif chance < 0.11:
        act = "interrupt"
    return Work(cells, act, draw.uniform(0.0, 0.6))
