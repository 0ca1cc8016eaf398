"""The streams of this server, by kernel and session: they outlive the notebooks' websockets.

jupyter_server discards its connection object with the browser's websocket; the stream stays here
until the notebook has been away for ``KEEP_SECONDS`` or the kernel is gone. Of one that was away
for longer, and of those that a process before this one had, a record stays: without it a
notebook that comes back would not learn that the kernel's log is another one by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from logging import Logger
from typing import Final

from .board import Key, StatusBoard
from .kernel_stream import KernelStream
from .lifeline import Gateway
from .monitor import StreamMonitor
from .record import StreamRecord

KEEP_SECONDS: Final = 600.0
#: Records of streams without a notebook that are kept; the oldest go first.
KEEP_RECORDS: Final = 200
#: How long a lifecycle call waits for a session's first contact with its keeper.
NUMBERED_WITHIN: Final = 3.0


class StreamRegistry:
    """All streams towards one gateway cluster. ``noted`` is called when ``records`` would say
    something new."""

    def __init__(
        self,
        gateway: Gateway,
        log: Logger,
        *,
        board: StatusBoard,
        noted: Callable[[], None] = lambda: None,
    ) -> None:
        self._gateway = gateway
        self._log = log
        self._board = board
        self._noted = noted
        self._streams: dict[Key, KernelStream] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._former: dict[Key, StreamRecord] = {}
        self._interrupted: dict[Key, float] = {}

    def __repr__(self) -> str:
        return f"<StreamRegistry of {len(self._streams)}, {len(self._former)} to come back>"

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[KernelStream]:
        return iter(tuple(self._streams.values()))

    def restore(self, records: Iterable[StreamRecord]) -> None:
        """Expect the notebooks of a process that is gone."""
        now = asyncio.get_running_loop().time()
        self._former = {(record.kernel_id, record.session_id): record for record in records}
        self._interrupted = dict.fromkeys(self._former, now)

    def records(self) -> list[StreamRecord]:
        """What a process after this one should know of its streams."""
        return [*self._former.values(), *(s.record() for s in self._streams.values())]

    def enter(self, kernel_id: str, session_id: str) -> KernelStream:
        """The session's stream, a new one if there is none; it is kept until ``leave``."""
        key = (kernel_id, session_id)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key not in self._streams:
            self._streams[key] = self._make(key)
            self._noted()
        return self._streams[key]

    def leave(self, stream: KernelStream, *, resumable: bool) -> None:
        """A notebook left. Without a session id it cannot come back, so no more is kept for it than
        what it had sent, for a while."""
        key = (stream.kernel_id, stream.session_id)
        if stream.attached or self._streams.get(key) is not stream:
            return
        if not resumable and stream.idle:
            self.drop(stream)
        elif key not in self._timers:
            loop = asyncio.get_running_loop()
            end = self._retire if resumable else self.drop
            self._timers[key] = loop.call_later(KEEP_SECONDS, end, stream)

    def of_kernel(self, kernel_id: str) -> list[KernelStream]:
        return [stream for (kernel, _), stream in self._streams.items() if kernel == kernel_id]

    def drop(self, stream: KernelStream) -> None:
        """Close and forget a stream. Idempotent."""
        key = (stream.kernel_id, stream.session_id)
        mine = self._streams.get(key) is stream
        if mine:
            del self._streams[key]
            timer = self._timers.pop(key, None)
            if timer is not None:
                timer.cancel()
        stream.close()
        if mine:
            self._board.forget(key)
            self._noted()

    def kernel_gone(self, kernel_id: str, reason: str) -> None:
        """The kernel is gone for this server: tell its notebooks, forget its streams."""
        for key in [key for key in self._former if key[0] == kernel_id]:
            self._forget(key)
        self._noted()
        for stream in self.of_kernel(kernel_id):
            stream.over(reason, failed=False)

    async def after(self, kernel_id: str) -> list[str]:
        """``Holdfast-After`` values for a call that must not overtake what was sent before."""
        streams = self.of_kernel(kernel_id)
        await asyncio.gather(*(stream.wait_numbered(NUMBERED_WITHIN) for stream in streams))
        return [value for stream in streams if (value := stream.after()) is not None]

    def close(self) -> None:
        """The server stops."""
        for stream in list(self._streams.values()):
            self.drop(stream)
        self._board.close()

    def _make(self, key: Key) -> KernelStream:
        kernel_id, session_id = key
        former = self._former.pop(key, None)
        interrupted = self._interrupted.pop(key, None)
        monitor = StreamMonitor(key, self._board, partial(self._gateway.explain, kernel_id))
        if former is not None and interrupted is not None:
            monitor.interrupted(interrupted)
        return KernelStream(
            kernel_id=kernel_id,
            session_id=session_id,
            gateway=self._gateway,
            monitor=monitor,
            log=self._log,
            gone=self.drop,
            noted=self._noted,
            former=former,
        )

    def _retire(self, stream: KernelStream) -> None:
        """The notebook has been away for too long: only a record is kept."""
        record = stream.record()
        self.drop(stream)
        self._former[stream.kernel_id, stream.session_id] = record
        while len(self._former) > KEEP_RECORDS:
            self._forget(next(iter(self._former)))

    def _forget(self, key: Key) -> None:
        del self._former[key]
        self._interrupted.pop(key, None)
