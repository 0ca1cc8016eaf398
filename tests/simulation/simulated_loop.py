"""An asyncio loop whose time is a number, and processes on it that freeze or die between two steps.

Every task belongs to the process that its context names. Whenever a task of a process has given
control back to the loop, which is an await point, ``Process.on_step`` is told; there the process
may be killed (none of its code runs ever again, ``finally`` neither: a SIGKILL) or frozen (its
code runs on later, with whatever came meanwhile: a SIGSTOP). No thread, no socket, no real time:
the same choices give the same run. It must not know what runs in the processes.

Rejected: cancelling the tasks of a killed process (their ``finally`` blocks would run, which a
dead process's do not), and a wrapper around every await in the product.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

#: The process whose code runs; None: the world outside of all of them.
PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
#: What the running code does it for, handed down to tasks that it begins.
OPERATION: contextvars.ContextVar[str | None] = contextvars.ContextVar("operation", default=None)


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Time passes only when nobody can run, and then at once."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._serial = 0
        # What BaseEventLoop asks for what happens outside: nothing does.
        self._selector = self
        self.set_task_factory(_new_task)

    def __repr__(self) -> str:
        return f"<SimulatedLoop at {self._now:.3f} s>"

    def time(self) -> float:
        return self._now

    def serial(self) -> int:
        """Numbers in order of creation, so that sets of futures have the same order each time."""
        self._serial += 1
        return self._serial

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(loop=self)

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("every task waits for something that nobody will do")
        self._now += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""


class _Future(asyncio.Future[Any]):
    def __init__(self, *, loop: SimulatedLoop) -> None:
        super().__init__(loop=loop)
        self._order = loop.serial()

    def __hash__(self) -> int:
        return self._order


class _Task(asyncio.Task[Any]):
    _order = 0

    def __hash__(self) -> int:
        return self._order


class Process:
    """One program that may be frozen and killed. ``on_step(operation)`` after each of its steps."""

    def __init__(self, name: str, loop: SimulatedLoop) -> None:
        self.name = name
        self.loop = loop
        self.alive = True
        self.on_step: Callable[[str | None], None] | None = None
        self._frozen = False
        self._ending = False
        self._waiting: list[asyncio.Future[None]] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        state = "dead" if not self.alive else "frozen" if self._frozen else "running"
        return f"<Process {self.name} {state}, {len(self.tasks)} tasks>"

    @property
    def stopped(self) -> bool:
        """None of its code runs now."""
        return (self._frozen or not self.alive) and not self._ending

    @property
    def frozen(self) -> bool:
        return self._frozen and self.alive

    def spawn(
        self, work: Coroutine[Any, Any, Any], *, operation: str | None = None
    ) -> asyncio.Task[Any]:
        """Run ``work`` as this process's code."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        context.run(OPERATION.set, operation)
        return self.loop.create_task(work, context=context)

    def kill(self) -> None:
        self.alive = False

    def freeze(self) -> None:
        self._frozen = True

    def thaw(self) -> None:
        self._frozen = False
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def stop_here(self) -> asyncio.Future[None]:
        """What a task of a stopped process waits for instead of running its next step."""
        future: asyncio.Future[None] = self.loop.create_future()
        future._asyncio_future_blocking = True
        if self.alive:
            self._waiting.append(future)
        return future

    async def end(self) -> None:
        """After the story: let every task finish by cancellation, also a dead one's."""
        self._ending = True
        while self.tasks:
            tasks = list(self.tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


class _Steps(Coroutine[Any, Any, Any]):
    """A coroutine that goes on only while its process runs."""

    def __init__(self, work: Coroutine[Any, Any, Any], process: Process, name: str | None) -> None:
        self._work = work
        self._process = process
        self._operation = name
        self._held: BaseException | None = None

    def __await__(self) -> Any:
        return self._work.__await__()

    def send(self, value: Any) -> Any:
        return self._step(None)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        return self._step(kind if value is None else value)

    def close(self) -> None:
        self._work.close()

    def _step(self, error: BaseException | None) -> Any:
        if error is not None and not isinstance(self._held, asyncio.CancelledError):
            self._held = error  # as in a task that runs, a cancellation goes before all else
        if self._process.stopped:
            return self._process.stop_here()
        error, self._held = self._held, None
        waits = self._work.send(None) if error is None else self._work.throw(error)
        if self._process.on_step is not None:
            self._process.on_step(self._operation)
        return waits


def _new_task(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any],
    context: contextvars.Context | None = None,
) -> asyncio.Task[Any]:
    assert isinstance(loop, SimulatedLoop)
    get = contextvars.Context.get
    here = contextvars.copy_context() if context is None else context
    process = get(here, PROCESS)
    if process is not None:
        work = _Steps(work, process, get(here, OPERATION))
    task = _Task(work, loop=loop, context=here)
    task._order = loop.serial()
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task
