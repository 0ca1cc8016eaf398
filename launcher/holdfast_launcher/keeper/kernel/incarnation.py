"""One kernel process with its wire, from the first nudge to its last words.

It makes the kernel ready (nudges, the raised high-water mark), keeps the counters, the activity
and the kernel's own session id, filters the keeper's own traffic out, and ends the process
politely or not. Whether another incarnation follows is not its business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog
import zmq

from holdfast_protocol.errors import SendBufferFull
from holdfast_protocol.jupyter import Message
from holdfast_protocol.pieces import Pieces

from ..ports import KernelListener, KernelStartFailed
from . import highwater
from .counters import Counters
from .launch import Launched
from .lifecycle import Activity, exit_reason
from .readiness import Next, Readiness
from .wire import Wire, WireEvents, content_of

#: A nudge that had no answer is repeated after so many seconds.
_NUDGE_AGAIN: Final = 1.0
#: After an answered nudge that iopub missed, the next one follows after so many seconds.
_NUDGE_SOON: Final = 0.02
_COUNTER_TICK: Final = 0.5
_HIGHWATER_WAIT: Final = 5.0
_REPLY_WAIT: Final = 5.0
#: A busy kernel that was asked to end gets an interrupt after so many seconds; an adopted one
#: whose shell is silent for as long is busy.
_BUSY_GRACE: Final = 0.3
_WAIT_TO_END: Final = 5.0
_KILL_WAIT: Final = 5.0
#: Stands for the request, unknown to us, that an adopted kernel is busy with.
_ADOPTED: Final = "adopted"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Exit:
    """The process ended with ``status`` (subprocess's, or None when unknown)."""

    status: int | None

    @property
    def reason(self) -> str:
        return exit_reason(self.status)


class Incarnation:
    """``exited`` is done when the process is gone; ``end`` makes it so."""

    def __init__(
        self,
        launched: Launched,
        context: zmq.Context[zmq.Socket[bytes]],
        listener: KernelListener,
        on_change: Callable[[], None],
    ) -> None:
        self.launched = launched
        self.number = launched.incarnation
        self.activity = Activity()
        self.kernel_session: str | None = None
        self.highwater_raised = False
        self._listener = listener
        self._on_change = on_change
        self._readiness = Readiness(adopted=launched.adopted)
        self._news = asyncio.Event()
        self._kernel_info: dict[str, Any] | None = None
        self._counters = Counters()
        self._ready = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._wire = Wire(
            context,
            launched.connection,
            WireEvents(self._published, self._answered, self._own_answer, self._connected),
        )
        self.exited: asyncio.Future[Exit] = asyncio.ensure_future(self._wait_exit())

    def __repr__(self) -> str:
        return (
            f"Incarnation({self.number}, {self.launched.process!r}, {self.activity.state},"
            f" ready={self._ready}, highwater_raised={self.highwater_raised}, {self._wire!r})"
        )

    async def _wait_exit(self) -> Exit:
        status = await self.launched.process.wait()
        self._news.set()
        return Exit(status)

    # -- becoming ready

    async def become_ready(self, timeout: float, aborted: asyncio.Event) -> None:
        """Return when client messages may be sent. Raises KernelStartFailed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._nudge()
            step = await self._wait_answer(min(_NUDGE_AGAIN, deadline - loop.time()), aborted)
            if step is Next.READY:
                break
            if loop.time() >= deadline:
                raise KernelStartFailed(f"the kernel did not answer within {timeout:g} s")
            if step is Next.NUDGE:
                await self._wait_news(_NUDGE_SOON)
        if self.launched.adopted:
            await self._give_shell_a_moment()
        raising = self._raise_highwater()
        if not self.launched.adopted:  # an adopted kernel may be in a cell that takes hours
            await raising
        else:
            self._spawn(raising)
        if self.exited.done():
            raise KernelStartFailed(self.exited.result().reason)
        self._ready = True
        if self.launched.adopted and not self._readiness.shell:
            self.activity.observe("busy", _ADOPTED)  # the shell does not answer: a cell runs
        self._spawn(self._watch_counters())

    async def _give_shell_a_moment(self) -> None:
        """Control may answer just before an idle shell does; silence then means a running cell."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _BUSY_GRACE
        while not self._readiness.shell and loop.time() < deadline:
            await self._wait_news(deadline - loop.time())

    async def _wait_answer(self, timeout: float, aborted: asyncio.Event) -> Next:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            if self.exited.done():
                raise KernelStartFailed(self.exited.result().reason)
            if aborted.is_set():
                raise KernelStartFailed("the kernel was shut down while it started")
            step = self._readiness.decide()
            if step is not Next.WAIT or loop.time() >= deadline:
                return step
            await self._wait_news(deadline - loop.time())

    async def _wait_news(self, timeout: float) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Something outside changed that ``become_ready`` looks at."""
        self._news.set()

    def _nudge(self) -> None:
        for channel in ("shell", "control"):
            try:
                self._wire.ask(channel, "kernel_info_request", {})
            except SendBufferFull:  # nobody reads: what was sent before is enough
                return

    async def _raise_highwater(self) -> None:
        self.highwater_raised = False
        if self._kernel_info is None or not highwater.applies_to(self._kernel_info):
            return
        patience = None if self.launched.adopted else _HIGHWATER_WAIT
        try:
            async with asyncio.timeout(patience):
                self.highwater_raised = await self._confirm_highwater()
        except TimeoutError:
            pass  # said below
        if not self.highwater_raised and not self.exited.done():
            _log.warning("kernel_highwater_not_raised", incarnation=self.number)

    async def _confirm_highwater(self) -> bool:
        """Ask until the kernel answers; a cell that fails aborts what is queued behind it."""
        while not self.exited.done():
            request = self._wire.ask("shell", "execute_request", highwater.request_content())
            await self._wait_reply(request)
            if not request.done():
                request.cancel()
                break
            content = content_of(request.result())
            if content.get("status") != "aborted":
                return highwater.is_raised(content)
            await asyncio.sleep(_NUDGE_SOON)
        return False

    def _connected(self) -> None:
        if self._ready:  # a new connection has the old mark again
            self._spawn(self._raise_highwater())

    # -- what the kernel says

    def _published(self, v1: bytes | Pieces, message: Message) -> None:
        self._counters.observe(message.msg_id, iopub=True)
        if not self._readiness.iopub:
            self._readiness.iopub = True
            self._news.set()
        msg_type = message.msg_type
        if msg_type == "iopub_welcome":
            return
        own = self._wire.is_own(message)
        if msg_type == "status":
            self._learn_session(message)
            if own:
                return
            self._observe_status(message)
        elif own and msg_type == "execute_input":
            return
        self._listener.published(v1, message)

    def _observe_status(self, message: Message) -> None:
        before = self.activity.state
        status = str(content_of(message).get("execution_state", ""))
        self.activity.observe(status, message.parent_id)
        if self.activity.state != before:
            self._on_change()

    def _learn_session(self, message: Message) -> None:
        if self.kernel_session is None:
            self.kernel_session = str(message.header_dict.get("session", "")) or None
            self._on_change()

    def _answered(self, session_id: str, v1: bytes | Pieces, message: Message) -> None:
        self._counters.observe(message.msg_id, iopub=False)
        self._listener.answered(session_id, v1, message)

    def _own_answer(self, message: Message) -> None:
        self._counters.observe(message.msg_id, iopub=False)
        if message.msg_type != "kernel_info_reply":
            return
        self._learn_session(message)
        self._kernel_info = content_of(message)
        if message.channel == "shell":
            self._readiness.shell = True
            if self._ready:
                self.activity.observe("idle", _ADOPTED)
                self._on_change()
        else:
            self._readiness.control = True
        self._news.set()

    async def _watch_counters(self) -> None:
        while not self.exited.done():
            await asyncio.sleep(_COUNTER_TICK)
            self._report_lost(self._counters.tick())

    def _report_lost(self, count: int) -> None:
        if not count:
            return
        if self.highwater_raised:
            # The mark is off at both ends: nothing can have been dropped. What is missing was
            # numbered and never sent (a display hook that swallows a message does that).
            _log.info("kernel_counter_skipped", count=count, incarnation=self.number)
            return
        self.activity.doubt()
        self._listener.lost(count, "the kernel dropped output: its send queue was full")

    # -- clients

    def open_session(self, session_id: str) -> None:
        self._wire.open(session_id)

    def close_session(self, session_id: str) -> None:
        self._counters.forgive(self._wire.close_session(session_id))

    def send(self, session_id: str, message: Message) -> None:
        self._wire.send(session_id, message)

    # -- interrupt and end

    async def interrupt(self) -> None:
        """By signal, or by message with a bounded wait for the answer."""
        if self.launched.interrupt_mode != "message":
            await self.launched.process.interrupt()
            return
        request = self._wire.ask("control", "interrupt_request", {})
        try:
            async with asyncio.timeout(_REPLY_WAIT):
                await self._wait_reply(request)
        except TimeoutError:
            _log.warning("kernel_interrupt_unanswered", incarnation=self.number)

    async def _wait_reply(self, request: asyncio.Future[Message]) -> None:
        """Return when the answer is there or none can come any more."""
        either: set[asyncio.Future[Any]] = {request, self.exited}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

    def stop_accepting(self) -> None:
        self._wire.stop_accepting()

    async def end(self, *, restart: bool, now: bool) -> Exit:
        """End the process; deliver its last words; close everything. Idempotent enough."""
        self.stop_accepting()
        if not self.exited.done() and not now:
            try:
                await self._ask_to_end(restart=restart)
            except Exception as error:  # plug-ins raise what they like; it is killed below
                _log.warning("kernel_not_asked_to_end", error=repr(error))
        if not self.exited.done():
            await self.launched.process.kill()
            if not await self._exits_within(_KILL_WAIT):
                _log.error("kernel_survives_kill", pid=self.launched.process.pid)
        ended = self.exited.result() if self.exited.done() else Exit(None)
        if not await self._wire.drain():
            self._listener.lost(1, "something still sent for the kernel after its process ended")
        self._report_lost(self._counters.finish())
        await self._close(restart=restart)
        return ended

    async def _ask_to_end(self, *, restart: bool) -> None:
        """Shutdown request, then (when busy) interrupt, then SIGTERM at half of the time."""
        process = self.launched.process
        half = process.wait_time(_WAIT_TO_END) / 2
        steps: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (half, process.terminate),
            (half, process.kill),
        ]
        if self.activity.state == "busy":
            # Asked first, interrupted second: so a queued cell does not begin to run instead.
            steps.insert(0, (_BUSY_GRACE, self.interrupt))
        self._wire.ask("control", "shutdown_request", {"restart": restart})
        await process.shutdown_requested(restart=restart)
        for wait, step in steps:
            if await self._exits_within(wait):
                return
            await step()

    async def _exits_within(self, timeout: float) -> bool:
        await asyncio.wait({self.exited}, timeout=timeout)
        return self.exited.done()

    async def _close(self, *, restart: bool) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._wire.close()
        if not self.exited.done():
            self.exited.cancel()
        await self.launched.cleanup(restart=restart)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
