"""Log entries on disk: append-only segment files that have no name.

A segment is unlinked while open, so that nothing of a user's output outlives the keeper and
nobody else can open it. Entries come in seq order without holes, so a segment needs one offset
per entry and goes as a whole when its last entry is dropped. Errors of the disk are the
caller's to decide on: every method that touches a file raises OSError and has then changed
nothing.

Rejected: one file with hole punching (not on every file system), and writing in a thread
(entries then have a third place to be, neither memory nor disk, and a page cache write of one
batch takes less than a millisecond; ``state_dir`` is documented to be node-local).
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from holdfast_protocol.pieces import Buffer, Pieces, gather

SEGMENT_BYTES = 16 * 1024 * 1024
#: pwritev(2) takes no more buffers at a time (UIO_MAXIOV).
_MAX_BUFFERS = 1024


class _Segment:
    """Entries ``first`` … ``last`` in one unlinked file."""

    def __init__(self, directory: Path, first: int) -> None:
        descriptor, name = tempfile.mkstemp(prefix="log.", dir=directory)  # 0600
        try:
            Path(name).unlink()
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self.first = first
        self.ends = array("Q", [0])

    @property
    def last(self) -> int:
        return self.first + len(self.ends) - 2

    @property
    def size(self) -> int:
        return self.ends[-1]

    def append(self, entries: Sequence[bytes | Pieces]) -> None:
        start = self.size
        try:
            _write_all(self._descriptor, _gathered(entries), start)
        except OSError:
            os.ftruncate(self._descriptor, start)  # gives a full disk its bytes back
            raise
        for entry in entries:
            self.ends.append(self.size + len(entry))

    def read(self, seq: int, offset: int, length: int | None) -> bytes:
        index = seq - self.first
        start, end = self.ends[index] + offset, self.ends[index + 1]
        if length is not None:
            end = min(end, start + length)
        pieces = []
        while start < end:
            piece = os.pread(self._descriptor, end - start, start)
            if not piece:
                raise OSError(f"log segment ends before entry {seq} does")
            pieces.append(piece)
            start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        os.close(self._descriptor)


class Segments:
    """The log's older part, on disk: entries ``first`` … ``last`` without holes."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segments: deque[_Segment] = deque()

    def __repr__(self) -> str:
        return f"<Segments {self.first}..{self.last} in {len(self._segments)} files>"

    @property
    def empty(self) -> bool:
        return not self._segments

    @property
    def first(self) -> int:
        """Of the oldest file; its entries may be dropped already. 0 when empty."""
        return self._segments[0].first if self._segments else 0

    @property
    def last(self) -> int:
        return self._segments[-1].last if self._segments else 0

    @property
    def size(self) -> int:
        """Bytes in files, dropped entries in the oldest one included."""
        return sum(segment.size for segment in self._segments)

    def append(self, first: int, entries: Sequence[bytes | Pieces]) -> None:
        """Write entries ``first``, ``first + 1`` … Raises OSError; nothing is then stored."""
        current = self._segments[-1] if self._segments else None
        if current is not None and first != current.last + 1:
            raise ValueError(f"entry {first} does not follow {current.last}")
        if current is None or current.size >= self._segment_bytes:
            current = _Segment(self._directory, first)
            try:
                current.append(entries)
            except OSError:
                current.close()
                raise
            self._segments.append(current)
        else:
            current.append(entries)

    def read(self, seq: int, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an entry. Raises KeyError when it is not here, OSError when the disk fails."""
        return self._find(seq).read(seq, offset, length)

    def end_of(self, seq: int) -> int:
        """The last seq in the file that holds ``seq``. Raises KeyError."""
        return self._find(seq).last

    def oldest_end(self) -> int:
        """The last seq of the oldest file; 0 when empty."""
        return self._segments[0].last if self._segments else 0

    def drop_through(self, seq: int) -> None:
        """Close the files whose entries are all at or below ``seq``."""
        while self._segments and self._segments[0].last <= seq:
            self._segments.popleft().close()

    def close(self) -> None:
        while self._segments:
            self._segments.popleft().close()

    def _find(self, seq: int) -> _Segment:
        # readers are mostly at the oldest or the newest file
        if self._segments and self._segments[-1].first <= seq <= self._segments[-1].last:
            return self._segments[-1]
        for segment in self._segments:
            if segment.first <= seq <= segment.last:
                return segment
        raise KeyError(seq)


def _gathered(entries: Sequence[bytes | Pieces]) -> list[memoryview]:
    parts: list[Buffer] = []
    for entry in entries:
        parts += entry.parts if isinstance(entry, Pieces) else (entry,)
    return [memoryview(part) for part in gather(parts)]


def _write_all(descriptor: int, views: list[memoryview], position: int) -> None:
    """Raises OSError; an unknown part is then written."""
    first = 0
    while first < len(views):
        written = os.pwritev(descriptor, views[first : first + _MAX_BUFFERS], position)
        position += written
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        if written:
            views[first] = views[first][written:]
