"""A keeper's sessions: one per ``session_id``, living as long as the kernel.

A session outlives its connections. It has one stream of each kind at most (a shim and a browser
may come under the same id one after the other; both then share the place in the log) and one
live connection. No I/O here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from holdfast_protocol.errors import CloseCode
from holdfast_protocol.frames import ByeReason
from holdfast_protocol.stream.keeper import SessionStream

from .plain import PlainStream


class Attachment(ABC):
    """A live connection, as its session sees it."""

    #: The proxy's name for it, for ``/v1/drain``.
    tunnel: str | None

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
        return 0 if self.stream is None else self.stream.accepted

    def wake(self) -> None:
        if self.attachment is not None:
            self.attachment.wake()


class Sessions:
    """All sessions of a kernel by id. ``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._by_id: dict[str, Session] = {}
        #: Those with a connection: the byte path walks these.
        self.attached: list[Session] = []

    def __repr__(self) -> str:
        return f"<Sessions {len(self._by_id)}, {len(self.attached)} attached>"

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def find(self, session_id: str) -> Session | None:
        return self._by_id.get(session_id)

    def add(self, session_id: str, *, durable: bool) -> tuple[Session, bool]:
        """The session with this id, and whether it is new."""
        session = self._by_id.get(session_id)
        if session is not None:
            return session, False
        session = self._by_id[session_id] = Session(session_id, durable=durable)
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

    def remove(self, session: Session) -> None:
        self._by_id.pop(session.session_id, None)

    def absent_for(self, session: Session) -> float:
        """Seconds since its last connection; 0.0 while there is one."""
        return 0.0 if session.absent_since is None else self.clock() - session.absent_since
