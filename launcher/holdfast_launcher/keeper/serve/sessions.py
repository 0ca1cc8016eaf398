"""A keeper's sessions: one per ``session_id``, living as long as the kernel.

A session outlives its connections. It has one stream of each kind at most (a shim and a browser
may come under the same id one after the other; both then share the place in the log) and one
live connection. No I/O here.

Each page load is a session, and most never come back. One that was away for long is *remembered*:
its stream's few numbers, and its place in the log's index; of those, the longest remembered ones
are forgotten beyond a bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Final

from holdfast_protocol.errors import CloseCode
from holdfast_protocol.frames import ByeReason
from holdfast_protocol.stream.keeper import Remembered, SessionStream

from .clients.plain import PlainStream

#: Sessions of which only the numbers are kept; less than a kilobyte each.
MAX_REMEMBERED: Final = 10_000


class Attachment(ABC):
    """A live connection, as its session sees it."""

    #: The proxy's name for it, for ``/v1/drain``.
    tunnel: str | None
    #: Whether a close frame of its client's came: a broken connection has none.
    left = False

    @abstractmethod
    def wake(self) -> None:
        """There may be something to write. Cheap, idempotent."""

    @abstractmethod
    def dismiss(
        self, reason: ByeReason, code: CloseCode, detail: str, *, come_back: bool = False
    ) -> None:
        """Take nothing more from it, say goodbye between two frames and close it."""


class Session:
    """One session. ``durable``: its client named it, so it may come back."""

    def __init__(self, session_id: str, *, durable: bool) -> None:
        self.session_id = session_id
        self.durable = durable
        self.stream: SessionStream | None = None
        #: What its stream goes on from.
        self.remembered: Remembered | None = None
        self.plain: PlainStream | None = None
        self.attachment: Attachment | None = None
        #: When its last connection went (the loop's clock); None while there is one.
        self.absent_since: float | None = None
        #: Losses up to this seq were shown in its cells.
        self.loss_shown = 0
        #: Whether the kernel side holds sockets for it.
        self.open = False

    def __repr__(self) -> str:
        state = "attached" if self.attachment is not None else "absent"
        return f"<Session {self.session_id} {state} {self.stream or self.plain}>"

    @property
    def accepted(self) -> int:
        """The highest seq that the session's stream client had accepted."""
        known = self.stream or self.remembered
        return 0 if known is None else known.accepted

    def wake(self) -> None:
        if self.attachment is not None:
            self.attachment.wake()


class Sessions:
    """All sessions of a kernel by id. ``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._by_id: dict[str, Session] = {}
        # the longest remembered first
        self._remembered: dict[str, Remembered] = {}
        self._holding: set[str] = set()
        #: Those with a connection: the byte path walks these.
        self.attached: list[Session] = []

    def __repr__(self) -> str:
        return (
            f"<Sessions {len(self._by_id)}, {len(self.attached)} attached, "
            f"{len(self._remembered)} remembered>"
        )

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def find(self, session_id: str) -> Session | None:
        return self._by_id.get(session_id)

    def add(self, session_id: str, *, durable: bool) -> tuple[Session, bool]:
        """The session with this id, and whether it is new."""
        session = self._by_id.get(session_id)
        if session is not None:
            if session.attachment is None:
                session.absent_since = self.clock()  # its client is at the door
            return session, False
        session = self._by_id[session_id] = Session(session_id, durable=durable)
        session.remembered = self._remembered.pop(session_id, None)
        self._holding.discard(session_id)
        session.absent_since = self.clock()
        return session, True

    def attach(self, session: Session, attachment: Attachment) -> Attachment | None:
        """Make ``attachment`` the live one; returns the one that it replaces."""
        old, session.attachment = session.attachment, attachment
        session.absent_since = None
        if session not in self.attached:
            self.attached.append(session)
        return old if old is not attachment else None

    def detach(self, session: Session, attachment: Attachment) -> bool:
        """The connection ended; False when another one had replaced it before."""
        if session.attachment is not attachment:
            return False
        session.attachment = None
        session.absent_since = self.clock()
        self.attached.remove(session)
        return True

    def accepted(self, session_id: str) -> int:
        """The highest seq accepted of this session; 0 when there is none."""
        known = self._by_id.get(session_id) or self._remembered.get(session_id)
        return 0 if known is None else known.accepted

    def remember(self, session: Session) -> list[str]:
        """Keep only what is needed when it comes back after all; the ids that are forgotten."""
        name = session.session_id
        self._by_id.pop(name, None)
        known = session.stream.remembered if session.stream is not None else session.remembered
        self._remembered[name] = known or Remembered(None, 0, 0)
        self._holding.add(name)
        excess = len(self._remembered) - MAX_REMEMBERED
        gone = list(self._remembered)[:excess] if excess > 0 else []
        for old in gone:
            del self._remembered[old]
            self._holding.discard(old)
        return gone

    def take_holding(self) -> set[str]:
        """The remembered ones that hold the log back; they do not any more."""
        holding, self._holding = self._holding, set()
        return holding

    def remove(self, session: Session) -> None:
        self._by_id.pop(session.session_id, None)

    def absent_for(self, session: Session) -> float:
        """Seconds since its last connection; 0.0 while there is one."""
        return 0.0 if session.absent_since is None else self.clock() - session.absent_since
