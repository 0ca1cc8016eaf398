"""A program's side of a stream: what a browser's websocket is elsewhere.

It takes what the stream gives, hands it to the program's inbox, and proves it to the stream: at
once while the program keeps up, and otherwise when it has caught up, so that what a fast kernel
says waits in its keeper's log and not in this process's memory. Lives in the background thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from holdfast_protocol.errors import FrameError
from holdfast_protocol.jupyter import channel_of_v1

from ..stream.kernel_stream import KernelStream
from ..stream.outbox import Item
from .background import Background
from .inbox import Inbox
from .messages import death_in, is_word_of_the_shim

#: Bytes that the program has not taken before the keeper is told of no more. The stream itself
#: holds as much again before it stops reading.
UNREAD_BYTES: Final = 32 * 1024 * 1024
#: Seconds in which nothing is taken, while something else is waited for, that make it plain that
#: what waits here is not read at all: holding back would then be waiting for ever.
STALLED: Final = 0.5


class ProgramLeg:
    """A ``Notebook`` as the stream sees it. ``attach`` it to one stream."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self.inbox = Inbox(relieved=self._relieved)
        self.restart_expected = False
        self._stream: KernelStream | None = None
        self._waiting: list[bytes] = []
        self._scheduled = False
        self._index = 0
        self._proven = 0
        self._stall: asyncio.TimerHandle | None = None
        self._taken = 0

    def __repr__(self) -> str:
        return f"<ProgramLeg proven={self._proven} of {self._index} {self.inbox!r}>"

    @property
    def open(self) -> bool:
        return self._stream is not None and self.inbox.ended is None

    @property
    def holding(self) -> bool:
        """Whether proofs are held back."""
        return self._stall is not None

    def attach(self, stream: KernelStream) -> None:
        self._stream = stream
        stream.attach(self)

    def detach(self) -> None:
        """The program wants no more. Idempotent."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.detach(self)
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self.inbox.end("the channels are closed")

    # the stream's side

    def write(self, items: Sequence[Item]) -> bool:
        """Take items. They go on a moment later: if the stream ends with them, it says so first."""
        self._waiting += [item.message for item in items]
        self._index = items[-1].index
        if not self._scheduled:
            self._scheduled = True
            self._background.loop.call_soon(self._hand_over)
        return True

    def close(self, code: int, reason: str) -> None:
        """The stream is over."""
        self.inbox.end(reason or f"the gateway closed the connection ({code})")
        self._hand_over()

    def _hand_over(self) -> None:
        waiting, self._waiting, self._scheduled = self._waiting, [], False
        passed: list[tuple[str, bytes]] = []
        for data in waiting:
            try:
                channel = channel_of_v1(data)
                death = death_in(data, restart_expected=self.restart_expected)
            except FrameError:
                continue  # the stream has let it pass unread; nobody could read it here either
            if death is not None:
                self.inbox.put(passed)
                passed = []
                self.inbox.end(death)
            ended = self.inbox.ended is not None
            if channel == "iopub" or not ended or not (death or is_word_of_the_shim(data)):
                passed.append((channel, data))
        self.inbox.put(passed)
        self._prove()

    # proofs

    def _prove(self) -> None:
        if self.inbox.unread <= UNREAD_BYTES or self.inbox.ended is not None:
            self._prove_all()
        elif self._stall is None:
            self._watch()

    def _watch(self) -> None:
        self._taken = self.inbox.taken
        self._stall = self._background.loop.call_later(STALLED, self._look)

    def _look(self) -> None:
        self._stall = None
        if self.inbox.taken == self._taken and self.inbox.awaited:
            self._prove_all()
        else:
            self._prove()

    def _prove_all(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._stream is not None and self._index > self._proven:
            self._proven = self._index
            self._stream.proven(self._index)

    def _relieved(self) -> None:
        """In the program's thread: it has taken something."""
        if self._stall is not None and self.inbox.unread <= UNREAD_BYTES // 2:
            self._background.soon(self._prove)
