"""Remembers the answer of each lifecycle call by its ``Holdfast-Request``.

Safety rule: *one request id takes effect once.* The operation runs in a task of its own that no
caller's disconnection cancels; whoever comes with the same id, at the same time or later, waits
for that task and gets its answer. Only finished answers are forgotten, the oldest first; and a
503 at once, because it says that nothing took effect and to ask again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

MAX_ANSWERS = 256
_NOT_DONE = 503


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as a value, so that it can be given again."""

    status: int
    body: dict[str, Any]


class Answers:
    """A bounded memory of answers, by operation and request id."""

    def __init__(self, limit: int = MAX_ANSWERS) -> None:
        self._limit = limit
        self._tasks: OrderedDict[tuple[str, str], asyncio.Task[Answer]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Answers {len(self._tasks)}>"

    async def once(
        self, operation: str, request_id: str | None, run: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """The answer of ``run``, which is started unless this id was seen before."""
        if request_id is None:
            return await asyncio.shield(asyncio.ensure_future(_as_task(run)))
        key = (operation, request_id)
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(_as_task(run))
            self._forget_oldest()
        answer = await asyncio.shield(task)
        if answer.status == _NOT_DONE and self._tasks.get(key) is task:
            del self._tasks[key]
        return answer

    def _forget_oldest(self) -> None:
        for key in list(self._tasks):
            if len(self._tasks) <= self._limit:
                return
            if self._tasks[key].done():
                del self._tasks[key]


async def _as_task(run: Callable[[], Awaitable[Answer]]) -> Answer:
    return await run()
