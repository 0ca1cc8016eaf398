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

A log on disk may hold millions of small entries, so one costs 12 bytes here (a size and the
number of its audience) and is an object only while somebody looks at it.

Rejected: one log per session (iopub would be stored once per open notebook), reference
counts per entry (an absent session then needs a walk over the whole log to be forgotten), and
a list of objects (130 bytes an entry: a full log of small messages then costs a gigabyte of
memory on top of the one on disk).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from .audiences import EVERYBODY, Audiences
from .errors import InvalidState
from .pieces import Buffer, Pieces

#: Slots of removed entries that are kept before the arrays are compacted: amortises the copy.
_SLACK: Final = 4096


class Entry(NamedTuple):
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

    def read(self, seq: int) -> bytes | Pieces:
        """Entry ``seq``, uncopied if possible. Raises KeyError when it is gone."""
        ...

    def read_part(self, seq: int, offset: int, length: int) -> Sequence[Buffer]:
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


@dataclass(slots=True)
class _Span:
    """Where entries of one audience are within a range: first and last seq, and how many."""

    first: int
    last: int
    count: int


class LogIndex:
    """Numbers entries 1, 2, 3 … and knows who still needs them. See the module's safety rule."""

    def __init__(self) -> None:
        # [_start:] of both are present
        self._sizes = array("Q")
        self._audience = array("I")
        self._start = 0
        self._floor = 0
        self._bytes = 0
        self._audiences = Audiences()
        self._readers: dict[str, _Reader] = {}
        # The reader that held the last trim back: asked first, because it mostly still does.
        self._blocker: tuple[str, _Reader] | None = None

    def __repr__(self) -> str:
        return (
            f"<LogIndex {self._floor + 1}..{self.head} {self._bytes} bytes "
            f"sessions={len(self._readers)}>"
        )

    @property
    def head(self) -> int:
        """The seq of the newest entry; 0 when there never was one."""
        return self._floor + len(self._sizes) - self._start

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

    def has_session(self, session: str) -> bool:
        return session in self._readers

    def append(self, size: int, audience: str | None = None) -> int:
        """Add an entry and return its seq."""
        seq = self.head + 1
        self._sizes.append(size)
        self._audience.append(self._audiences.take(audience))
        self._bytes += size
        return seq

    def entry(self, seq: int) -> Entry | None:
        """The entry with this seq, or None when it is gone or not there yet."""
        if self._floor < seq <= self.head:
            return self._entry_at(self._start + seq - self._floor - 1)
        return None

    def oldest(self) -> Entry | None:
        return self.entry(self._floor + 1)

    def size_through(self, seq: int) -> int:
        """Bytes of the entries present up to ``seq``."""
        return sum(self._sizes[self._start : self._slot_after(seq)])

    def next_for(self, session: str, after: int) -> Entry | None:
        """The first present entry above ``after`` that is for ``session``, or None."""
        reader = self._readers.get(session)
        start = max(after, self._floor)
        if reader is not None and reader.scan_from <= start <= reader.scan_to:
            start = reader.scan_to
        slot = self._find(session, self._start + start - self._floor)
        if reader is not None:
            reader.scan_from, reader.scan_to = after, slot - self._start + self._floor
        return self._entry_at(slot) if slot < len(self._sizes) else None

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
        """The loss that a reader at position ``after`` has not been told of, or None.

        ``count`` is exact as long as entries are for everybody, and otherwise not too low.
        """
        loss = self._reader(session).loss
        if loss is None or loss.last <= after:
            return None
        first = max(loss.first, after + 1)
        # what lies before ``first`` was counted, too, and has reached a reader that stands there
        return Loss(first, loss.last, min(loss.count, loss.last - first + 1), loss.reason)

    def trim(self) -> Dropped | None:
        """Remove what every holding session has acknowledged; with no session, nothing."""
        limit = self._trim_limit()
        if limit <= self._floor:
            return None
        return self._remove(limit, "the session was away too long", only_idle=True)

    def drop_oldest(self, size: int, reason: str) -> Dropped | None:
        """Remove oldest entries until ``size`` bytes are gone; record each session's loss."""
        slot, freed = self._start, 0
        while slot < len(self._sizes) and freed < size:
            freed += self._sizes[slot]
            slot += 1
        if slot == self._start:
            return None
        return self._remove(self._floor + slot - self._start, reason, only_idle=False)

    def check_invariants(self) -> None:
        """Raises AssertionError when the safety rule is broken. For tests and debug runs."""
        assert len(self._sizes) == len(self._audience)
        assert self._bytes == sum(self._sizes[self._start :])
        present = Counter(self._audience[self._start :])
        del present[EVERYBODY]
        assert present == self._audiences.counts()
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

    def _entry_at(self, slot: int) -> Entry:
        seq = self._floor + slot - self._start + 1
        return Entry(seq, self._sizes[slot], self._audiences.name(self._audience[slot]))

    def _slot_after(self, seq: int) -> int:
        """Where the entry above ``seq`` is, within what is present."""
        return self._start + min(max(seq, self._floor), self.head) - self._floor

    def _find(self, session: str, slot: int) -> int:
        """The first slot from ``slot`` on that is for ``session``; the end when there is none."""
        mine, end, audience = self._audiences.number(session), len(self._audience), self._audience
        while slot < end and (number := audience[slot]) != EVERYBODY and number != mine:
            slot += 1
        return slot

    def _trim_limit(self) -> int:
        """How far every holding session is; the floor when nothing may go.

        A page that was closed blocks at its place for days while another one acknowledges
        hundreds of times a second, so whoever blocked last is asked before all are.
        """
        if self._blocker is not None:
            name, reader = self._blocker
            known = self._readers.get(name) is reader
            if known and reader.holds and self._advance(name, reader) <= self._floor:
                return self._floor
        self._blocker = None
        limit = self.head + 1
        for name, reader in self._readers.items():
            if reader.holds and (cursor := self._advance(name, reader)) < limit:
                limit, self._blocker = cursor, (name, reader)
                if limit <= self._floor:
                    break
        return self._floor if self._blocker is None else limit

    def _advance(self, name: str, reader: _Reader) -> int:
        # below the floor all is acknowledged, or in a loss that is told whatever is trimmed
        slot = self._find(name, self._start + max(reader.cursor, self._floor) - self._floor)
        reader.cursor = self._floor + slot - self._start
        return reader.cursor

    def _remove(self, limit: int, reason: str, *, only_idle: bool) -> Dropped:
        """Remove everything up to ``limit`` and note who had not read it. See the safety rule."""
        gone = self._spans(self._floor, limit)
        for name, reader in self._readers.items():
            if reader.cursor < limit and not (only_idle and reader.holds):
                unread = gone if reader.cursor <= self._floor else self._spans(reader.cursor, limit)
                self._note_loss(name, reader, unread, limit, reason)
        for number, span in gone.items():
            self._audiences.release(number, span.count)
        end = self._slot_after(limit)
        dropped = Dropped(limit, end - self._start, sum(self._sizes[self._start : end]))
        self._start, self._floor = end, limit
        self._bytes -= dropped.size
        if self._start >= _SLACK and 2 * self._start >= len(self._sizes):
            del self._sizes[: self._start], self._audience[: self._start]
            self._start = 0
        return dropped

    def _spans(self, after: int, through: int) -> dict[int, _Span]:
        """Where in ``(after, through]`` each audience's entries are."""
        spans: dict[int, _Span] = {}
        numbers = self._audience[self._slot_after(after) : self._slot_after(through)]
        for seq, number in enumerate(numbers, after + 1):
            span = spans.get(number)
            if span is None:
                spans[number] = _Span(seq, seq, 1)
            else:
                span.last, span.count = seq, span.count + 1
        return spans

    def _note_loss(
        self, name: str, reader: _Reader, unread: dict[int, _Span], limit: int, reason: str
    ) -> None:
        """What ``unread`` says is about to go, and ``reader`` may have needed some of it."""
        mine = (EVERYBODY, self._audiences.number(name))
        spans = [unread[number] for number in mine if number in unread]
        old = reader.loss
        if not spans:
            reader.cursor = limit if old is None else reader.cursor
            return
        first = min(span.first for span in spans)
        reader.cursor = first - 1 if old is None else reader.cursor
        reader.loss = Loss(
            first if old is None else old.first,
            max(span.last for span in spans),
            sum(span.count for span in spans) + (0 if old is None else old.count),
            reason,
        )
