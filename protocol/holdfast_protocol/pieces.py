"""Bytes that lie in several places and are read as one: a long message that nobody copied.

For bulk data each copy into fresh memory costs as much as the transport itself, so a message's
large buffers stay where they were received until they are written. Pure; it knows no format.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

Buffer = bytes | bytearray | memoryview

#: A part of fewer bytes is joined with its neighbours: that costs less than a part of its own.
ALONE_BYTES: Final = 16 * 1024


class Pieces:
    """Immutable by agreement, as the buffers that it refers to are. ``len`` is in bytes, and
    ``bytes`` makes a copy in one place."""

    __slots__ = ("_ends", "_parts")

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = tuple(part for part in parts if len(part))
        self._ends = tuple(accumulate(map(len, self._parts)))

    def __repr__(self) -> str:
        return f"<Pieces {len(self)} bytes in {len(self._parts)}>"

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)

    @property
    def parts(self) -> tuple[Buffer, ...]:
        return self._parts

    def part(self, offset: int, length: int) -> list[Buffer]:
        """At most ``length`` bytes from ``offset`` on, as views."""
        end = min(offset + length, len(self))
        found: list[Buffer] = []
        index = bisect_right(self._ends, offset)
        while offset < end:
            begin = self._ends[index] - len(self._parts[index])
            stop = min(end, self._ends[index])
            found.append(memoryview(self._parts[index])[offset - begin : stop - begin])
            offset, index = stop, index + 1
        return found


def gather(parts: Sequence[Buffer]) -> list[Buffer]:
    """The same bytes in fewer parts: small neighbours are joined, large ones left alone."""
    gathered: list[Buffer] = []
    small: list[Buffer] = []
    for part in parts:
        if len(part) < ALONE_BYTES:
            small.append(part)
            continue
        if small:
            gathered.append(b"".join(small))
            small = []
        gathered.append(part)
    if small:
        gathered.append(b"".join(small))
    return gathered
