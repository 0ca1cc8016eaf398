"""A history arranged by who it is about. It judges nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from support.chaos.history import (
    Acted,
    Answered,
    Began,
    Called,
    Closed,
    Ended,
    Event,
    Fenced,
    Found,
    Healed,
    Injected,
    Listed,
    Opened,
    Ran,
    Received,
    Sampled,
    Sent,
    Settled,
    Stuck,
    Unsent,
)


@dataclass
class Session:
    """One client's session: everything in the order in which it saw it."""

    name: str
    client: str = ""
    kernel: str = ""
    events: list[Opened | Closed | Sent | Unsent | Stuck | Received] = field(default_factory=list)
    sent: dict[str, Sent] = field(default_factory=dict)
    unsent: set[int] = field(default_factory=set)
    stuck: dict[int, Stuck] = field(default_factory=dict)
    #: The first receipt of each message, by the cell it is for ("" and others: not for a cell).
    answers: dict[str, list[Received]] = field(default_factory=lambda: defaultdict(list))
    seen: set[str] = field(default_factory=set)

    @property
    def received(self) -> list[Received]:
        return [event for event in self.events if isinstance(event, Received)]


@dataclass(frozen=True)
class Rest:
    """A REST call and its answer; None: the run ended before it."""

    called: Called
    answered: Answered | None

    @property
    def status(self) -> int:
        return self.answered.status if self.answered else 0


class Story:
    """``events`` in any order between writers, in order within each."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.began: Began | None = None
        self.ended: Ended | None = None
        self.settled: Settled | None = None
        self.sessions: dict[str, Session] = {}
        self.runs: list[Ran] = []
        self.faults: list[Injected] = []
        self.healed: dict[int, float] = {}
        self.tokens: list[Fenced | Acted] = []
        self.samples: list[Sampled] = []
        self.listed: list[Listed] = []
        self.found: list[Found] = []
        self._called: dict[int, Called] = {}
        self._answered: dict[int, Answered] = {}
        for event in events:
            self._take(event)
        self.calls = [
            Rest(called, self._answered.get(number)) for number, called in self._called.items()
        ]
        self.started, self.deleted = self._lives()
        #: When each kernel's end was confirmed. A delete that was refused promises nothing.
        self.removed = {
            rest.called.kernel: rest.answered.at
            for rest in self.calls
            if rest.called.action == "delete" and rest.status in (204, 404) and rest.answered
        }
        #: Kernels that their own clients deleted in the middle of their work: what was under way
        #: then needs no end. The clearing up at the end of a run excuses nothing.
        self.given_up = {
            rest.called.kernel
            for rest in self.calls
            if rest.called.action == "delete" and rest.called.client in ("shim", "plain")
        }

    def __repr__(self) -> str:
        return f"<Story sessions={len(self.sessions)} faults={len(self.faults)}>"

    @property
    def cells(self) -> int:
        return sum(len(session.sent) for session in self.sessions.values())

    def when(self, at: float) -> float:
        """Seconds since the run began."""
        return at - (self.began.at if self.began else 0.0)

    def calls_of(self, kernel: str, action: str) -> list[Rest]:
        """The calls with this aim, answered or not."""
        return [
            rest
            for rest in self.calls
            if rest.called.kernel == kernel and rest.called.action == action
        ]

    def faults_on(self, kernel: str, kind: str) -> list[Injected]:
        """Faults of a kind that hit this kernel's own keeper."""
        return [fault for fault in self.faults if fault.kernel == kernel and fault.kind == kind]

    def _lives(self) -> tuple[dict[str, float], dict[str, float]]:
        """When each kernel was known to be there, and when somebody first asked for its end."""
        started: dict[str, float] = {}
        deleted: dict[str, float] = {}
        for rest in self.calls:
            if rest.called.action == "start" and rest.status == 201 and rest.answered:
                kernel = rest.answered.kernels[0]
                started.setdefault(kernel, rest.answered.at)
            elif rest.called.action == "delete":
                deleted.setdefault(rest.called.kernel, rest.called.at)
        return started, deleted

    def _session(self, name: str) -> Session:
        return self.sessions.setdefault(name, Session(name))

    def _take(self, event: Event) -> None:
        match event:
            case Opened() | Closed() | Sent() | Unsent() | Stuck() | Received():
                self._of_session(event)
            case Called():
                self._called[event.call] = event
            case Answered():
                self._answered[event.call] = event
            case Ran():
                self.runs.append(event)
            case Injected():
                self.faults.append(event)
            case Healed():
                self.healed[event.fault] = event.at
            case Fenced() | Acted():
                self.tokens.append(event)
            case Sampled():
                self.samples.append(event)
            case Listed():
                self.listed.append(event)
            case Found():
                self.found.append(event)
            case Began():
                self.began = event
            case Settled():
                self.settled = event
            case Ended():
                self.ended = event

    def _of_session(self, event: Opened | Closed | Sent | Unsent | Stuck | Received) -> None:
        session = self._session(event.session)
        session.events.append(event)
        match event:
            case Opened():
                session.client, session.kernel = event.client, event.kernel
            case Sent():
                session.sent[event.msg_id] = event
            case Unsent():
                session.unsent.add(event.cell)
            case Stuck():
                session.stuck[event.cell] = event
            case Received():
                if event.msg_id not in session.seen:
                    session.seen.add(event.msg_id)
                    session.answers[event.parent].append(event)
