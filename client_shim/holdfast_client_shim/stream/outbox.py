"""What one notebook has been or is to be given and has not proven yet to have.

Pure. Each message gets an index of its own, because messages of the shim have no place in the
kernel's log; ``seq`` says up to where the log counts as consumed once the message is proven.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from holdfast_protocol.errors import FrameError
from holdfast_protocol.jupyter import channel_of_v1

from .notices import lifecycle_state

#: What a message costs beside its bytes, so that many small ones are bounded too.
_OVERHEAD = 64


@dataclass(frozen=True, slots=True)
class Item:
    index: int
    seq: int
    message: bytes


class Notebook(Protocol):
    """The browser's side, as a stream sees it."""

    @property
    def open(self) -> bool: ...
    def write(self, items: Sequence[Item]) -> bool: ...
    def close(self, code: int, reason: str) -> None: ...


class Outbox:
    """Unproven messages, oldest first."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._next = 1
        self._written = 0
        self._answered = 0
        self.bytes = 0

    def __repr__(self) -> str:
        return f"<Outbox {len(self._items)} messages, {self.bytes} bytes, {self._written} written>"

    def __len__(self) -> int:
        return len(self._items)

    def append(self, seq: int, message: bytes) -> Item:
        """Take a message; ``seq`` must not decrease."""
        item = Item(self._next, seq, message)
        self._next += 1
        self._items.append(item)
        self.bytes += len(message) + _OVERHEAD
        return item

    def written(self, index: int) -> None:
        """Everything up to ``index`` was written to a websocket."""
        self._written = max(self._written, index)

    def prove(self, index: int) -> int | None:
        """The notebook has everything up to ``index``: the ``seq`` that is consumed by it.

        None when nothing new is proven. An index never written proves nothing.
        """
        if index > self._written:
            return None
        seq = None
        while self._items and self._items[0].index <= index:
            item = self._items.popleft()
            self.bytes -= len(item.message) + _OVERHEAD
            seq = item.seq
        return seq

    def input_answered(self) -> None:
        """The user answered: no ``input_request`` so far waits any more."""
        self._answered = self._next - 1

    def new_epoch(self) -> None:
        """Another log began: what is here proves nothing about that one."""
        self._items = deque(replace(item, seq=0) for item in self._items)

    def replay(self) -> list[Item]:
        """What a notebook that comes back is to be given, in order.

        All that was not proven, except what would do harm if it came twice: everything up to
        the last ``restarting`` that was written (JupyterLab reconnects by itself on it and would
        loop), lifecycle once written, and an ``input_request`` once written and answered.
        """
        start = 0
        for item in self._items:
            if item.index <= self._written and lifecycle_state(item.message) == "restarting":
                start = item.index
        return [
            item
            for item in self._items
            if item.index > self._written or (item.index > start and not self._harmful(item))
        ]

    def _harmful(self, item: Item) -> bool:
        if lifecycle_state(item.message) is not None:
            return True
        try:
            return item.index <= self._answered and channel_of_v1(item.message) == "stdin"
        except FrameError:
            return False
