"""The index of a kernel's message log: which entries there are, for whom, and what may go.

This module numbers entries and decides what is kept; where the bytes lie is the keeper's
business (memory, then segment files). Pure and synchronous; no clock.

An entry's *audience* is everybody (``None``: iopub, lifecycle) or one session (its replies).
For a session, entries that are not for it count as acknowledged. Dropping entries that a
session still needed is remembered as that session's *loss* until it has acknowledged past it,
so that a gap is told to every connection that has not seen it, and to no other.

Safety rule. Let ``cursor(s)`` be the highest seq such that every entry up to it is acknowledged
by ``s`` or not for ``s``. ``trim`` never removes an entry above ``min(cursor)``; so what a
session could still ask for is either in the log or inside its recorded loss. Only
``drop_oldest`` removes more, and it records the loss in the same step.

Rejected: one log per session (iopub would be stored once per open notebook), and reference
counts per entry (an absent session then needs a walk over the whole log to be forgotten).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from .errors import InvalidState

#: Slots of removed entries that are kept before the list is compacted: amortises the copy.
_SLACK: Final = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """One log entry: ``seq`` from 1, ``size`` in bytes, ``audience`` a session or everybody."""

    seq: int
    size: int
    audience: str | None

    def is_for(self, session: str) -> bool:
        return self.audience is None or self.audience == session


@dataclass(frozen=True, slots=True)
class Loss:
    """Entries ``first`` … ``last`` that held ``count`` entries for one session, now gone."""

    first: int
    last: int
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """What left the log: entries up to ``last``, ``entries`` of them, ``size`` bytes."""

    last: int
    entries: int
    size: int


class LogReader(Protocol):
    """What the keeper's end of a stream needs of a log: the index and the bytes."""

    @property
    def index(self) -> LogIndex: ...

    def read(self, seq: int) -> bytes:
        """The bytes of entry ``seq``. Raises KeyError when it is gone."""
        ...

    def read_part(self, seq: int, offset: int, length: int) -> bytes | memoryview:
        """At most ``length`` bytes of entry ``seq`` from ``offset`` on, uncopied if possible.

        Raises KeyError when it is gone.
        """
        ...


@dataclass(slots=True)
class _Reader:
    """A session's place in the log."""

    acknowledged: int
    cursor: int
    holds: bool = True
    loss: Loss | None = None
    # next_for's memory: there is nothing for this session in (scan_from, scan_to]
    scan_from: int = 0
    scan_to: int = 0


class LogIndex:
    """Numbers entries 1, 2, 3 … and knows who still needs them. See the module's safety rule."""

    def __init__(self) -> None:
        # _entries[_start:] are present; a list, because a deque is slow in the middle
        self._entries: list[Entry] = []
        self._start = 0
        self._floor = 0
        self._bytes = 0
        self._readers: dict[str, _Reader] = {}

    def __repr__(self) -> str:
        return (
            f"<LogIndex {self._floor + 1}..{self.head} {self._bytes} bytes "
            f"sessions={len(self._readers)}>"
        )

    @property
    def head(self) -> int:
        """The seq of the newest entry; 0 when there never was one."""
        return self._floor + len(self._entries) - self._start

    @property
    def floor(self) -> int:
        """Everything up to this seq is gone."""
        return self._floor

    @property
    def size(self) -> int:
        """Bytes of all entries present."""
        return self._bytes

    @property
    def sessions(self) -> tuple[str, ...]:
        return tuple(self._readers)

    def append(self, size: int, audience: str | None = None) -> int:
        """Add an entry and return its seq."""
        seq = self.head + 1
        self._entries.append(Entry(seq, size, audience))
        self._bytes += size
        return seq

    def entry(self, seq: int) -> Entry | None:
        """The entry with this seq, or None when it is gone or not there yet."""
        if self._floor < seq <= self.head:
            return self._entries[self._start + seq - self._floor - 1]
        return None

    def oldest(self) -> Entry | None:
        return self.entry(self._floor + 1)

    def next_for(self, session: str, after: int) -> Entry | None:
        """The first present entry above ``after`` that is for ``session``, or None."""
        reader = self._readers.get(session)
        start = max(after, self._floor)
        if reader is not None and reader.scan_from <= start <= reader.scan_to:
            start = reader.scan_to
        for seq in range(start + 1, self.head + 1):
            entry = self._entries[self._start + seq - self._floor - 1]
            if entry.is_for(session):
                if reader is not None:
                    reader.scan_from, reader.scan_to = after, seq - 1
                return entry
        if reader is not None:
            reader.scan_from, reader.scan_to = after, self.head
        return None

    def add_session(self, session: str, at: int | None = None) -> None:
        """Begin to keep entries above ``at`` (default: the head) for ``session``. Idempotent."""
        if session in self._readers:
            return
        position = self.head if at is None else max(at, self._floor)
        self._readers[session] = _Reader(acknowledged=position, cursor=position)

    def remove_session(self, session: str) -> None:
        """Keep nothing more for ``session``. Idempotent."""
        self._readers.pop(session, None)

    def set_holding(self, session: str, holds: bool) -> None:
        """Whether ``session`` holds back ``trim``; one that was away too long does not."""
        self._reader(session).holds = holds

    def acknowledged(self, session: str) -> int:
        return self._reader(session).acknowledged

    def acknowledge(self, session: str, seq: int) -> None:
        """``session`` has everything up to ``seq``. Raises InvalidState if ahead or going back."""
        reader = self._reader(session)
        if not reader.acknowledged <= seq <= self.head:
            raise InvalidState(
                f"acknowledge {seq}: session has {reader.acknowledged}, head is {self.head}"
            )
        reader.acknowledged = seq
        reader.cursor = max(reader.cursor, seq)
        if reader.loss is not None and reader.loss.last <= seq:
            # what went after the loss was not for this session, or the loss would reach there
            reader.loss = None
            reader.cursor = max(reader.cursor, self._floor)

    def loss_for(self, session: str, after: int) -> Loss | None:
        """The loss that a reader at position ``after`` has not been told of, or None."""
        loss = self._reader(session).loss
        if loss is None or loss.last <= after:
            return None
        return Loss(max(loss.first, after + 1), loss.last, loss.count, loss.reason)

    def trim(self) -> Dropped | None:
        """Remove what every holding session has acknowledged; with no session, nothing."""
        holding = [
            (name, reader) for name, reader in self._readers.items() if reader.holds
        ]  # fmt: skip
        if not holding:
            return None
        limit = min(self._advance(name, reader) for name, reader in holding)
        if limit <= self._floor:
            return None
        entries = size = 0
        while self._floor < limit:
            gone = self._pop()
            entries, size = entries + 1, size + gone.size
            self._note_loss(gone, "the session was away too long", only_idle=True)
        return Dropped(self._floor, entries, size)

    def drop_oldest(self, size: int, reason: str) -> Dropped | None:
        """Remove oldest entries until ``size`` bytes are gone; record each session's loss."""
        entries = freed = 0
        while self._floor < self.head and freed < size:
            gone = self._pop()
            entries, freed = entries + 1, freed + gone.size
            self._note_loss(gone, reason, only_idle=False)
        return Dropped(self._floor, entries, freed) if entries else None

    def check_invariants(self) -> None:
        """Raises AssertionError when the safety rule is broken. For tests and debug runs."""
        present = self._entries[self._start :]
        assert self._bytes == sum(entry.size for entry in present)
        assert [entry.seq for entry in present] == list(range(self._floor + 1, self.head + 1))
        for name, reader in self._readers.items():
            assert reader.acknowledged <= reader.cursor <= self.head
            assert reader.loss is None or reader.loss.last <= self._floor
            gone_unread = self._floor > reader.cursor
            assert not gone_unread or reader.loss is not None, f"silent loss for {name}"

    def _reader(self, session: str) -> _Reader:
        try:
            return self._readers[session]
        except KeyError:
            raise InvalidState(f"unknown session {session!r}") from None

    def _advance(self, name: str, reader: _Reader) -> int:
        seq = max(reader.cursor, self._floor if reader.loss is None else reader.cursor)
        while seq < self.head:
            entry = self.entry(seq + 1)
            if entry is not None and entry.is_for(name):
                break
            seq += 1
        reader.cursor = seq
        return seq

    def _pop(self) -> Entry:
        gone = self._entries[self._start]
        self._start += 1
        self._floor = gone.seq
        self._bytes -= gone.size
        if self._start >= _SLACK and 2 * self._start >= len(self._entries):
            del self._entries[: self._start]
            self._start = 0
        return gone

    def _note_loss(self, gone: Entry, reason: str, *, only_idle: bool) -> None:
        for name, reader in self._readers.items():
            if (only_idle and reader.holds) or reader.cursor >= gone.seq:
                continue
            if not gone.is_for(name):
                if reader.loss is None and reader.cursor == gone.seq - 1:
                    reader.cursor = gone.seq
                continue
            old = reader.loss
            first = gone.seq if old is None else old.first
            count = 1 if old is None else old.count + 1
            reader.loss = Loss(first, gone.seq, count, reason)
