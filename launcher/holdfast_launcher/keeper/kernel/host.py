"""The kernel side of a keeper: one kernel, its incarnations one after another.

Invariants: ``incarnation_ended`` comes after everything that the old incarnation said and
before anything of the next; between it and ``incarnation_ready`` nothing is sent to any kernel.
Start, restart, shutdown and the handling of a crash hold one lock, so they never mix; only
``shutdown`` cuts a start short. Nothing here is opened before ``start``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, Final

import structlog
import zmq

from holdfast_protocol.errors import InvalidState
from holdfast_protocol.jupyter import Message

from ..config import KeeperConfig
from ..ports import KernelHost, KernelInfo, KernelListener, KernelStartFailed
from .incarnation import Incarnation
from .launch import KernelLaunch, Launched
from .lifecycle import CrashBudget, Event, State, advance

_START_TIMEOUT: Final = 60.0
_TRIM_INTERVAL: Final = 5.0
#: How long a plug-in may take to let go of a start that is not wanted any more.
_ABANDON_WAIT: Final = 2.0
#: Another process took the port between our choice and the kernel's bind.
_PORT_TAKEN: Final = "already in use"

_log = structlog.get_logger(__name__)


class Host(KernelHost):
    """See KernelHost. ``start_timeout`` in seconds, from launch to ready."""

    def __init__(
        self,
        config: KeeperConfig,
        listener: KernelListener,
        *,
        start_timeout: float = _START_TIMEOUT,
    ) -> None:
        self._config = config
        self._listener = listener
        self._start_timeout = start_timeout
        self._launch = KernelLaunch(config)
        self._budget = CrashBudget(config.autorestart_limit)
        self._state = State.NEW
        self._number = 0
        self._reason: str | None = None
        self._current: Incarnation | None = None
        self._sessions: set[str] = set()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._lock = asyncio.Lock()
        self._aborted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Host({self._state.value}, incarnation {self._number}, {self._current!r})"

    # -- KernelHost

    def info(self) -> KernelInfo:
        current = self._current
        return KernelInfo(
            incarnation=self._number,
            execution_state=self._execution_state(),
            reason=self._reason,
            pid=None if current is None else current.launched.process.pid,
            kernel_session=None if current is None else current.kernel_session,
        )

    def open_session(self, session_id: str) -> None:
        if session_id in self._sessions:
            return
        self._sessions.add(session_id)
        if self._state is State.RUNNING and self._current is not None:
            self._current.open_session(session_id)

    def close_session(self, session_id: str) -> None:
        self._sessions.discard(session_id)
        if self._current is not None:
            self._current.close_session(session_id)

    def send(self, session_id: str, message: Message) -> None:
        if self._current is None or self._state is State.STARTING:
            raise InvalidState(f"the kernel is {self._state.value}")
        self._current.send(session_id, message)

    async def start(self) -> None:
        await self._to_the_end(self._start())

    async def _start(self) -> None:
        async with self._lock:
            if self._state is State.RUNNING:
                return
            self._move(Event.LAUNCH)
            try:
                await self._bring_up(adopt=self._config.adopt and self._number == 0)
            except KernelStartFailed as error:
                self._give_up(str(error))
                raise

    async def interrupt(self) -> None:
        if self._state is not State.RUNNING or self._current is None:
            raise InvalidState(f"a kernel that is {self._state.value} cannot be interrupted")
        await self._current.interrupt()

    async def restart(self) -> None:
        await self._to_the_end(self._restart())

    async def _restart(self) -> None:
        async with self._lock:
            self._move(Event.RESTART)
            # not "restarting": on that word JupyterLab says that the kernel appears to have died
            await self._end_current("starting", "restart was asked for", now=False)
            try:
                await self._bring_up()
            except KernelStartFailed as error:
                self._give_up(str(error))
                raise

    async def shutdown(self, *, now: bool) -> None:
        self._aborted.set()
        if self._current is not None:
            self._current.wake()
        async with self._lock:
            if self._state is State.CLOSED:
                return
            self._reason = self._reason or "the kernel was shut down"
            self._move(Event.SHUTDOWN)
            await self._end_current("dead", self._reason, now=now)
            for task in list(self._tasks):
                task.cancel()
            if self._context is not None:
                self._context.destroy(linger=0)
                self._context = None

    # -- the life of incarnations; all under the lock

    async def _bring_up(self, *, adopt: bool = False) -> None:
        """Start (or adopt) a process and make it ready. Raises KernelStartFailed."""
        try:
            await self._launch_one(adopt=adopt)
        except KernelStartFailed as error:
            if self._config.transport != "tcp" or _PORT_TAKEN not in error.output:
                raise
            _log.warning("kernel_port_taken", kernel_id=self._config.kernel_id)
            await self._launch_one(adopt=False)

    async def _launch_one(self, *, adopt: bool) -> None:
        if self._aborted.is_set():
            raise KernelStartFailed("the kernel was shut down before it started")
        if self._context is None:
            self._context = zmq.Context()
        launched = self._launch.adopt() if adopt else await self._start_process()
        self._number = launched.incarnation
        try:
            current = Incarnation(launched, self._context, self._listener, self._changed)
        except Exception as error:  # no descriptors left, mostly
            await asyncio.shield(launched.abort())
            raise KernelStartFailed(f"the kernel's sockets cannot be had: {error}") from error
        self._current = current
        self._reason = None
        self._changed()
        try:
            await current.become_ready(self._start_timeout, self._aborted)
            for session_id in self._sessions:
                current.open_session(session_id)
        except BaseException as error:
            # A start that was cancelled must not leave a process behind either.
            self._current = None
            await asyncio.shield(current.end(restart=False, now=True))
            if isinstance(error, Exception):
                # whatever it was: only this one is answered, and leaves a state to go on from
                raise KernelStartFailed(str(error), self._launch.output.tail()) from error
            raise
        self._move(Event.READY)
        _log.info("kernel_ready", incarnation=self._number, highwater=current.highwater_raised)
        self._spawn_watch(current)
        self._listener.incarnation_ready(self._number)

    async def _start_process(self) -> Launched:
        """Raises KernelStartFailed; at once when a shutdown comes, because a plug-in whose start
        hangs would hang for ever and the shutdown behind it with it."""
        starting = asyncio.create_task(self._launch.start(self._number + 1))
        aborted = asyncio.create_task(self._aborted.wait())
        try:
            await asyncio.wait({starting, aborted}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                return starting.result()
        finally:
            aborted.cancel()
            starting.cancel()
        await asyncio.wait({starting}, timeout=_ABANDON_WAIT)
        if not starting.done():
            _log.error("kernel_start_hangs", spec=self._config.spec)
        elif not starting.cancelled() and starting.exception() is None:
            await starting.result().abort()
        raise KernelStartFailed("the kernel was shut down while it started")

    async def _end_current(self, state: str, reason: str, *, now: bool) -> None:
        """End the running incarnation if there is one, and say so after its last words."""
        current = self._current
        if current is None:
            return
        await current.end(restart=state != "dead", now=now)
        self._current = None
        self._listener.incarnation_ended(current.number, state, reason)
        self._changed()

    async def _watch(self, current: Incarnation) -> None:
        """Wait for one incarnation's process; a crash is an exit that nobody asked for."""
        while True:
            done, _ = await asyncio.wait({current.exited}, timeout=_TRIM_INTERVAL)
            self._launch.output.trim()
            if done:
                break
        async with self._lock:
            if self._current is current:
                await self._crashed(current.exited.result().reason)

    async def _crashed(self, reason: str) -> None:
        """Start again while the budget lasts. Every attempt that fails is a crash, too."""
        while not self._aborted.is_set():
            _log.warning("kernel_crashed", incarnation=self._number, reason=reason)
            if not self._budget.spend(time.monotonic()):
                break
            self._move(Event.CRASH)
            await self._end_current("restarting", reason, now=True)
            try:
                await self._bring_up()
            except KernelStartFailed as error:
                reason = str(error)
                continue
            return
        if not self._aborted.is_set():
            limit = self._config.autorestart_limit
            reason += f"; it was restarted {limit} times already" if limit else ""
        await self._end_dead(reason)

    async def _end_dead(self, reason: str) -> None:
        if self._current is not None:
            self._move(Event.GIVE_UP)
            self._reason = reason
            await self._end_current("dead", reason, now=True)
        else:
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """There is no kernel and none follows."""
        self._reason = reason
        self._move(Event.GIVE_UP)
        self._listener.incarnation_ended(self._number, "dead", reason)

    # -- small things

    def _move(self, event: Event) -> None:
        self._state = advance(self._state, event)
        self._changed()

    def _changed(self) -> None:
        self._listener.state_changed()

    def _execution_state(self) -> str:
        if self._state is State.RUNNING and self._current is not None:
            return self._current.activity.state
        if self._state is State.RESTARTING:
            return "restarting"
        return "dead" if self._state in (State.DEAD, State.CLOSED) else "starting"

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """A caller that goes away (its connection broke) leaves no kernel half started.

        The work goes on without it; who calls again waits for the lock and finds the result.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(task)

    def _spawn_watch(self, current: Incarnation) -> None:
        async def watch() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch(current)

        task = asyncio.create_task(watch())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
