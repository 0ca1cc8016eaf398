"""The outgoing half of a session whose client cannot acknowledge: proof by pong. Pure.

A websocket peer answers pings in order (RFC 6455, 5.5.3), so a pong proves that everything
written before its ping arrived. After a batch comes a ping with this connection's nonce and the
seq; its pong moves ``proven``. A reconnect is replayed from there: at least once, with doubles
only inside the last unproven batch.

Two kinds of entries make clients act, so they come again only to who has not seen them.
``input_request``, once written, is written again only while it still waits for its answer. On
``restarting`` JupyterLab connects again by itself and would loop: it closes its websocket, and who
sends a close frame has read what was written up to the last word of the kernel's life. A connection
that broke proves nothing: the answers to what the kernel's end left, and that word, come again
until a pong proves them.

A foreign pong is ignored. Rejected: a ping after every message (a burst would double its
frames): while one ping is out, the next goes when its pong comes or much was written.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from holdfast_protocol.log import LogReader, Loss
from holdfast_protocol.pieces import Pieces

_PAYLOAD: Final = struct.Struct("<8sQ")
NONCE_BYTES: Final = 8
PING_ENTRIES: Final = 64
PING_BYTES: Final = 256 * 1024


class Mark(Enum):
    """What an entry makes a client do, where that matters for a replay."""

    LIFECYCLE = "lifecycle"
    INPUT = "input"


@dataclass(frozen=True, slots=True)
class Lost:
    """Entries are gone that this client had not been given."""

    loss: Loss


class PlainStream:
    """Where one plain session is in the log. ``mark_of`` and ``input_open`` look entries up."""

    def __init__(
        self,
        session_id: str,
        log: LogReader,
        *,
        mark_of: Callable[[int], Mark | None],
        input_open: Callable[[int], bool],
    ) -> None:
        self.session_id = session_id
        self.accepted = 0
        self.written = 0
        self._log = log
        self._mark_of = mark_of
        self._input_open = input_open
        self._nonce: bytes | None = None
        self._pings: deque[int] = deque()
        self._once: set[int] = set()
        #: The last lifecycle entry that this connection was given, and the last that was read.
        self._last_lifecycle = 0
        self._read_lifecycle = 0
        self._asked = 0
        self._since_ping = 0
        self._bytes_since_ping = 0

    def __repr__(self) -> str:
        return (
            f"<PlainStream {self.session_id} written={self.written} proven={self.proven} "
            f"pings={len(self._pings)}>"
        )

    @property
    def proven(self) -> int:
        """Everything up to this seq has arrived."""
        index = self._log.index
        return index.acknowledged(self.session_id) if index.has_session(self.session_id) else 0

    def attach(self, nonce: bytes) -> int:
        """A new connection with its own ``nonce``: start after what is proven; returns that seq."""
        index = self._log.index
        index.add_session(self.session_id)
        index.set_holding(self.session_id, True)
        start = self.settle()
        self._nonce, self.written, self._asked = nonce, start, start
        self._last_lifecycle = self._read_lifecycle
        self._pings.clear()
        self._since_ping = self._bytes_since_ping = 0
        self._once = {seq for seq in self._once if seq > start}
        return start

    def settle(self) -> int:
        """Where a next connection starts, made the session's place in the log."""
        start = max(self.proven, self._read_lifecycle)
        self._log.index.acknowledge(self.session_id, start)
        return start

    def detach(self, *, left: bool = False) -> None:
        """The connection is gone; its outstanding pings prove nothing any more. Idempotent.

        ``left``: its client closed it, or answered our closing, by a close frame.
        """
        if left:
            self._read_lifecycle = self._last_lifecycle
        self._nonce = None
        self._pings.clear()

    def next_entry(self) -> bytes | Pieces | Lost | None:
        """The next message to write (v1 framing), a loss to tell first, or None.

        Raises KeyError when the log lost the entry just now: ask again.
        """
        index = self._log.index
        loss = index.loss_for(self.session_id, self.written)
        if loss is not None:
            self.written = loss.last
            return Lost(loss)
        while (entry := index.next_for(self.session_id, self.written)) is not None:
            mark = self._mark_of(entry.seq)
            if mark is not None and not self._may_write(entry.seq, mark):
                self.written = entry.seq
                continue
            data = self._log.read(entry.seq)
            self.written = entry.seq
            self._since_ping += 1
            self._bytes_since_ping += len(data)
            return data
        return None

    @property
    def has_more(self) -> bool:
        """Whether entries or a loss are left; some of them may turn out not to be written."""
        index = self._log.index
        return (
            index.loss_for(self.session_id, self.written) is not None
            or index.next_for(self.session_id, self.written) is not None
        )

    def take_ping(self) -> bytes | None:
        """The payload of a ping to write now, after the entries so far; or None."""
        if self._nonce is None or self.written <= self._asked:
            return None
        if self._pings and not (
            self._since_ping >= PING_ENTRIES or self._bytes_since_ping >= PING_BYTES
        ):
            return None
        self._pings.append(self.written)
        self._asked = self.written
        self._since_ping = self._bytes_since_ping = 0
        return _PAYLOAD.pack(self._nonce, self.written)

    def pong(self, payload: bytes) -> int | None:
        """What the pong newly proves: a seq, already acknowledged in the index; or None."""
        if self._nonce is None or len(payload) != _PAYLOAD.size:
            return None
        nonce, seq = _PAYLOAD.unpack(payload)
        if nonce != self._nonce or seq not in self._pings:
            return None
        # a peer may answer only the latest of several pings (RFC 6455, 5.5.3)
        while self._pings and self._pings[0] <= seq:
            self._pings.popleft()
        if seq <= self.proven:
            return None
        self._log.index.acknowledge(self.session_id, seq)
        return int(seq)

    def check_invariants(self) -> None:
        """Raises AssertionError when the stream contradicts itself or its log."""
        assert self.proven <= self._log.index.head
        assert all(seq <= self.written for seq in self._pings)
        assert list(self._pings) == sorted(set(self._pings))

    def _may_write(self, seq: int, mark: Mark) -> bool:
        if mark is Mark.LIFECYCLE:
            self._last_lifecycle = seq
        elif seq in self._once:
            return self._input_open(seq)
        else:
            self._once.add(seq)
        return True
