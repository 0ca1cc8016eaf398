"""Watches one stream: clocks its events for the tracker, asks why a kernel is not ready, counts
what came again after a break, and has it all published when it is worth a word.

What counts as recovered: the messages in the first frames after a resume, up to the first one
that was not full. A keeper fills each frame from its log as far as it can, so that one ends
what had gathered while nobody read. It must not know what a message is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from holdfast_protocol.frames import CHUNK_BYTES

from ..gateway.upstream import DialFailed
from .board import Key, StatusBoard
from .status import StatusTracker, StreamStatus

#: (reason, whether the kernel's host can be reached), or None when the gateway does not know.
Explanation = tuple[str, bool]

#: Seconds after which a keeper that has nothing more to give counts as done, and at the most.
SETTLED: Final = 0.05
SETTLED_AT_MOST: Final = 1.0
#: Seconds between questions why a kernel is not ready.
ASK_AFTER: Final = 0.15
ASK_AGAIN: Final = 2.0
_FULL: Final = CHUNK_BYTES // 2
_FINAL: Final = frozenset({401, 403})


class StreamMonitor:
    """One stream's status. ``explain`` asks the gateway about the kernel."""

    def __init__(
        self, key: Key, board: StatusBoard, explain: Callable[[], Awaitable[Explanation | None]]
    ) -> None:
        self._key = key
        self._board = board
        self._explain = explain
        self._loop = asyncio.get_running_loop()
        self._tracker = StatusTracker(self._loop.time())
        self._said: tuple[object, ...] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._settle_timer: asyncio.TimerHandle | None = None
        self._settle_by = 0.0
        self._asking: asyncio.Task[None] | None = None
        #: Whether frames that come still belong to the break that is over.
        self.settling = False

    def __repr__(self) -> str:
        return f"<StreamMonitor {self._tracker!r}>"

    @property
    def status(self) -> StreamStatus:
        """As it is now."""
        return self._tracker.at(self._loop.time())

    def interrupted(self, now: float) -> None:
        """The stream was live in a process that is gone, until ``now`` of the loop's clock."""
        self._tracker.interrupted(now)

    def dialling(self) -> None:
        self._settled()
        self._tracker.dialling(self._loop.time())
        self._look()

    def failed(self, failure: DialFailed) -> None:
        """No gateway gave a connection."""
        now = self._loop.time()
        if failure.status is None:
            self._tracker.no_answer(now, str(failure))
        else:
            said = failure.said or f"the gateway answers {failure}"
            self._tracker.refused(now, said, final=failure.status in _FINAL)
        self._look()

    def opened(self, gateway: str) -> None:
        self._tracker.opened(self._loop.time(), gateway)
        if self._asking is None:
            self._asking = self._loop.create_task(self._ask(), name="holdfast: ask why")
        self._look()

    def live(self, *, note: str = "", can_replay: bool = True) -> None:
        """The stream works again, or for the first time."""
        self._stop_asking()
        now = self._loop.time()
        self._tracker.live(now, note=note, can_replay=can_replay)
        self.settling = self._tracker.at(now).resumed is not None
        if self.settling:
            self._settle_by = now + SETTLED_AT_MOST
            self._settle_soon()
        else:
            self._look()

    def received(self, size: int, messages: int) -> None:
        """A frame of ``size`` bytes while ``settling``, with so many whole messages."""
        self._tracker.counted(recovered=messages)
        if messages and size < _FULL:
            self._settled()
        else:
            self._settle_soon()

    def lost(self, messages: int) -> None:
        """So many will never come."""
        self._tracker.counted(lost=messages)

    def rested(self) -> None:
        """The connection is let go because nobody wants it."""
        self._tracker.rested()
        self._stop()

    def gone(self, reason: str) -> None:
        """It is over: said once, whatever comes after."""
        self._stop()
        self._tracker.gone(self._loop.time(), reason)
        self._look()

    def close(self) -> None:
        """The stream is dropped. Idempotent."""
        self._stop()

    def _stop(self) -> None:
        self.settling = False
        self._stop_asking()
        for timer in (self._timer, self._settle_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._settle_timer = None

    def _settle_soon(self) -> None:
        if self._settle_timer is not None:
            self._settle_timer.cancel()
        at = min(self._loop.time() + SETTLED, self._settle_by)
        self._settle_timer = self._loop.call_at(at, self._settled)

    def _settled(self) -> None:
        if self._settle_timer is not None:
            self._settle_timer.cancel()
            self._settle_timer = None
        if self.settling:
            self.settling = False
            self._look()

    def _look(self) -> None:
        """Publish what is due, and come back when something will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        worth_at = self._tracker.worth_telling_at()
        if now >= worth_at and not self.settling:
            self._board.changed(self._key, self._take)
        times = [worth_at if now < worth_at else None, self._tracker.next_change(now)]
        due = [time for time in times if time is not None]
        if due:
            self._timer = self._loop.call_at(min(due) + 0.001, self._look)

    def _take(self) -> StreamStatus | None:
        now = self._loop.time()
        status = self._tracker.at(now)
        if now < self._tracker.worth_telling_at() or self.settling:
            return None  # it has changed meanwhile, and will be looked at again
        said = (status.state, status.reason, status.gateway)
        if said == self._said and status.resumed is None:
            return None
        self._said = said
        self._tracker.told()
        return status

    def _stop_asking(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None and asking is not asyncio.current_task():
            asking.cancel()

    async def _ask(self) -> None:
        await asyncio.sleep(ASK_AFTER)
        while True:
            answer = await self._explain()
            if answer is not None:
                reason, reachable = answer
                self._tracker.explained(self._loop.time(), reason, reachable=reachable)
                self._look()
            await asyncio.sleep(ASK_AGAIN)
