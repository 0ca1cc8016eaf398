"""A kernel's message log: the index, and the bytes in memory first, then on disk.

The newest entries are in memory, older ones in segment files, so that a reader that keeps up
never touches the disk and one that does not costs disk instead of memory. A message's bytes
are stored once, whoever reads them.

Memory has two limits, because writing fresh file pages is slow (measured: 270 MB/s of CPU time,
where a reader takes 600 and a kernel gives 2,000): a burst may stay in memory up to
``burst_bytes`` for the moment that a reader needs to take it; what is still there when the
owner calls ``settle`` goes to disk until ``memory_bytes`` are left, a slice at a time, unless
readers are just taking it.

Safety rule: an entry leaves only by ``LogIndex.trim`` (everybody has it) or
``LogIndex.drop_oldest`` (which records the loss for everybody who has not). The index drops
first and the bytes follow, so a seq that the index still names always has its bytes.

What all logs of a node have on disk together is bounded, too: see ``quota``.

It knows no session policy but one, the hook ``on_pressure``: before anything unread is dropped,
the owner may let go of sessions that were away too long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

import structlog

from holdfast_protocol.log import Dropped, LogIndex
from holdfast_protocol.pieces import Buffer, Pieces

from .quota import NodeQuota
from .segments import Segments

_log = structlog.get_logger(__name__)

#: Written to disk at a time, so that a slow reader costs few large writes.
SPILL_BYTES = 1024 * 1024
#: Moved by one ``settle``: some 15 ms of writing.
SETTLE_BYTES = 4 * 1024 * 1024
#: Readers that took at least one in so many bytes of what is left are not disturbed.
TAKEN_SHARE = 4
REASON_FULL = "log full"
REASON_DISK = "the log's disk failed"
REASON_QUOTA = "node quota"


class Settling(Enum):
    """What ``settle`` found, and so when to call it again."""

    DONE = "memory is within its bound"  # not before ``on_unsettled``
    LATER = "readers are taking it"  # in a moment
    MORE = "a slice was moved to disk"  # soon, after others had their turn


class Journal:
    """The log of one kernel. A LogReader for the streams. Sizes are bytes."""

    def __init__(
        self,
        directory: Path,
        *,
        memory_bytes: int,
        disk_bytes: int,
        burst_bytes: int = 0,
        quota: NodeQuota | None = None,
        on_pressure: Callable[[], None] = lambda: None,
        on_unsettled: Callable[[], None] = lambda: None,
    ) -> None:
        self._index = LogIndex()
        self._memory: deque[bytes | Pieces] = deque()
        self._memory_first = 1
        self._memory_size = 0
        self._segments = Segments(directory)
        self._memory_limit = memory_bytes
        self._burst_limit = max(burst_bytes, memory_bytes)
        self._limit = memory_bytes + disk_bytes
        self._quota = quota
        self._on_pressure = on_pressure
        self._on_unsettled = on_unsettled
        self._settled = True
        self._taken = 0
        self._disk_failed = False
        self._lost = 0

    def __repr__(self) -> str:
        return (
            f"<Journal {self._index.floor + 1}..{self._index.head} {self._memory_size} bytes in "
            f"memory, {self._segments.size} on disk>"
        )

    @property
    def index(self) -> LogIndex:
        return self._index

    @property
    def limit(self) -> int:
        """Bytes that may be in memory and on disk together."""
        return self._limit

    @property
    def lost(self) -> int:
        """Entries that were dropped before everybody had them, since the log began."""
        return self._lost

    @property
    def memory_size(self) -> int:
        return self._memory_size

    @property
    def disk_size(self) -> int:
        return self._segments.size

    def append(self, data: bytes | Pieces, audience: str | None = None) -> int:
        """Store one message; returns its seq. Never fails: what does not fit costs the oldest."""
        seq = self._index.append(len(data), audience)
        self._memory.append(data)
        self._memory_size += len(data)
        if self._memory_size > self._burst_limit:
            self._spill(max(0, self._burst_limit - SPILL_BYTES))
        if self._settled and self._memory_size > self._memory_limit:
            self._settled, self._taken = False, 0
            self._on_unsettled()
        if self._index.size > self._limit:
            self._make_room()
        return seq

    def read(self, seq: int) -> bytes | Pieces:
        """The bytes of entry ``seq``. Raises KeyError when it is gone."""
        data = self._in_memory(seq)
        return self._on_disk(seq, 0, None) if data is None else data

    def read_part(self, seq: int, offset: int, length: int) -> Sequence[Buffer]:
        """At most ``length`` bytes from ``offset``; views of what is in memory. KeyError."""
        data = self._in_memory(seq)
        if data is None:
            return (self._on_disk(seq, offset, length),)
        if isinstance(data, Pieces):
            return data.part(offset, length)
        return (memoryview(data)[offset : offset + length],)

    def _in_memory(self, seq: int) -> bytes | Pieces | None:
        index = seq - self._memory_first
        if index >= len(self._memory):
            raise KeyError(seq)
        return self._memory[index] if index >= 0 else None

    def _on_disk(self, seq: int, offset: int, length: int | None) -> bytes:
        """When the disk fails under it, the whole file that holds the entry is given up as a
        loss first: the caller asks the index again and meets the gap."""
        if seq <= self._index.floor:
            raise KeyError(seq)
        try:
            return self._segments.read(seq, offset, length)
        except OSError as error:
            _log.error("log.read_failed", seq=seq, error=str(error))
            self._drop_through(self._segments.end_of(seq), REASON_DISK)
            raise KeyError(seq) from error

    def settle(self) -> Settling:
        """Move one slice of what exceeds ``memory_bytes`` to disk, if anything does.

        Readers that took a good part since the last call will soon have the rest, and to write
        it down meanwhile would slow them. A slow reader does not count as one.
        """
        taken, self._taken = self._taken, 0
        if self._memory_size > self._memory_limit:
            if taken * TAKEN_SHARE >= self._memory_size:
                return Settling.LATER
            target = max(0, self._memory_limit - SPILL_BYTES)
            self._spill(max(target, self._memory_size - SETTLE_BYTES))
        self._settled = self._memory_size <= self._memory_limit
        return Settling.DONE if self._settled else Settling.MORE

    def trim(self) -> None:
        """Let go of what every session has acknowledged."""
        self._forget(self._index.trim())

    def heed_quota(self) -> None:
        """Give up what is above this log's share of the node's quota, the oldest first."""
        excess = 0 if self._quota is None else self._quota.excess()
        if not excess:
            return
        target = self._segments.size - excess
        self._on_pressure()
        self.trim()
        while not self._segments.empty and self._segments.size > target:
            self._drop_through(self._segments.oldest_end(), REASON_QUOTA)

    def close(self) -> None:
        self._segments.close()
        if self._quota is not None:
            self._quota.close()

    def _spill(self, target: int) -> None:
        """Move the oldest entries from memory to disk until ``target`` bytes are left."""
        while self._memory_size > target and self._memory:
            batch, size = self._spill_batch(target)
            try:
                self._segments.append(self._memory_first, batch)
            except OSError as error:
                self._disk_is_full(error, target)
                continue
            self._disk_failed = False
            for _ in batch:
                self._memory.popleft()
            self._memory_first += len(batch)
            self._memory_size -= size
            if self._quota is not None and self._quota.note(self._segments.size):
                self.heed_quota()

    def _spill_batch(self, target: int) -> tuple[list[bytes | Pieces], int]:
        batch: list[bytes | Pieces] = []
        size = 0
        for entry in self._memory:
            if batch and (size + len(entry) > SPILL_BYTES or self._memory_size - size <= target):
                break
            batch.append(entry)
            size += len(entry)
        return batch, size

    def _disk_is_full(self, error: OSError, target: int) -> None:
        """One file that could not be written: give up the oldest, which frees disk or memory."""
        if not self._disk_failed:
            _log.error("log.disk_failed", error=str(error), directory_has=self._segments.size)
            self._disk_failed = True
        self._on_pressure()
        before = self._index.floor
        self.trim()
        if self._index.floor > before:
            return
        if self._segments.empty:
            # without any disk the newest stay as far as memory allows
            self._drop(max(1, self._memory_size - target), REASON_DISK)
        else:
            self._drop_through(self._segments.oldest_end(), REASON_DISK)

    def _make_room(self) -> None:
        self._on_pressure()
        self.trim()
        excess = self._index.size - self._limit
        if excess > 0:
            # a little more than needed, so that not every append has to come here
            self._drop(excess + min(SPILL_BYTES, self._limit // 8), REASON_FULL)

    def _drop_through(self, seq: int, reason: str) -> None:
        self._drop(self._index.size_through(seq), reason)

    def _drop(self, size: int, reason: str) -> None:
        dropped = self._index.drop_oldest(size, reason)
        if dropped is not None:
            self._lost += dropped.entries
            _log.warning("log.dropped", through=dropped.last, entries=dropped.entries, why=reason)
        self._forget(dropped)

    def _forget(self, dropped: Dropped | None) -> None:
        """Let the bytes follow the index."""
        if dropped is None:
            return
        self._segments.drop_through(dropped.last)
        if self._quota is not None:
            self._quota.note(self._segments.size)
        while self._memory and self._memory_first <= dropped.last:
            size = len(self._memory.popleft())
            self._memory_size -= size
            self._taken += size
            self._memory_first += 1
