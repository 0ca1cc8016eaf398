"""Tasks that belong to somebody: each is awaited at the end and none fails unseen.

``TaskSet`` keeps tasks until its owner closes; ``SingleFlight`` lets callers that want the same
thing at the same time share one task, which goes on when a caller is cancelled, because a start
that a client no longer waits for must still end in one of its states.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from holdfast_proxy.errors import ProxyError, Unavailable

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class TaskSet:
    """Background tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<TaskSet of {len(self._tasks)}{' closed' if self._closed else ''}>"

    def spawn(self, work: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T] | None:
        """Begin ``work``; None after ``close``, when nothing new may begin."""
        if self._closed:
            work.close()
            return None
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background task failed", task=task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel all and wait for them. Idempotent."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class SingleFlight:
    """At most one task per key; callers share its result or its error."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._running: dict[str, asyncio.Future[Any]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._running

    def __repr__(self) -> str:
        return f"<SingleFlight: {', '.join(self._running) or 'nothing'}>"

    def begin(self, key: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin unless it runs already; nobody waits here, and an expected error is dropped."""
        if key not in self._running:
            self._start(key, work)

    async def run(self, key: str, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Join the running task or begin one; cancelling a caller does not cancel the task.

        Raises what the work raises; CancelledError when the owner closed.
        """
        future = self._running.get(key) or self._start(key, work)
        result: _T = await asyncio.shield(future)
        return result

    def _start(self, key: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieved)
        self._running[key] = future
        if self._tasks.spawn(self._flight(key, future, work), name=key) is None:
            self._running.pop(key, None)
            future.cancel()
        return future

    async def _flight(
        self,
        key: str,
        future: asyncio.Future[Any],
        work: Callable[[], Coroutine[Any, Any, Any]],
    ) -> None:
        try:
            result = await work()
        except ProxyError as error:
            self._running.pop(key, None)
            future.set_exception(error)
        except BaseException:
            self._running.pop(key, None)
            future.set_exception(Unavailable("this failed inside the proxy; its log says why"))
            raise
        else:
            self._running.pop(key, None)
            future.set_result(result)


def _retrieved(future: asyncio.Future[Any]) -> None:
    """With no caller left the error is nobody's; asyncio would log it as never retrieved."""
    if not future.cancelled():
        future.exception()
