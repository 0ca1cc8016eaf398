"""What happened in a chaos run, as values: one event a line in a file of JSON lines.

The recorder writes them, the checker reads them, and neither knows the other. Times are seconds
of CLOCK_MONOTONIC, which all processes of a machine share. Not here: what any of it means.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

#: A fencing token as (era, revision).
Token = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened at ``at``."""

    at: float
    kinds: ClassVar[dict[str, type[Event]]] = {}

    def __init_subclass__(cls) -> None:
        Event.kinds[cls.__name__] = cls


@dataclass(frozen=True, kw_only=True)
class Began(Event):
    """The run: all that is needed to have the same one again."""

    seed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Injected(Event):
    """A fault begins. ``carried``: sessions whose stream went through its proxy then."""

    fault: int
    kind: str
    target: int
    carried: tuple[str, ...] = ()
    kernel: str = ""


@dataclass(frozen=True, kw_only=True)
class Healed(Event):
    fault: int


@dataclass(frozen=True, kw_only=True)
class Settled(Event):
    """All faults are over and everything that was asked to serve serves: quiet begins."""


@dataclass(frozen=True, kw_only=True)
class Opened(Event):
    """A websocket of a session is open. ``client``: ``shim`` or ``plain``."""

    session: str
    client: str
    kernel: str
    proxy: int = -1


@dataclass(frozen=True, kw_only=True)
class Closed(Event):
    session: str
    code: int


@dataclass(frozen=True, kw_only=True)
class Sent(Event):
    """A cell was given to the session's websocket. ``cell`` rises from 1 in each session;
    what it prints when nothing goes wrong follows from the rest (`cells`)."""

    session: str
    kernel: str
    cell: int
    msg_id: str
    lines: int
    width: int = 0


@dataclass(frozen=True, kw_only=True)
class Unsent(Event):
    """The client knows that this cell never arrived: what it sent after it was answered."""

    session: str
    cell: int


@dataclass(frozen=True, kw_only=True)
class Stuck(Event):
    """The client waited for this cell's end longer than anything here takes."""

    session: str
    cell: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Received(Event):
    """One message. ``text``: of a stream; ``state``: of a status; ``ename``, ``status``: of a
    reply."""

    session: str
    msg_id: str
    parent: str
    kind: str
    text: str = ""
    stream: str = ""
    state: str = ""
    status: str = ""
    ename: str = ""


@dataclass(frozen=True, kw_only=True)
class Called(Event):
    """A REST call goes out. ``action``: start, restart, interrupt, delete, list, get."""

    call: int
    client: str
    action: str
    kernel: str = ""


@dataclass(frozen=True, kw_only=True)
class Answered(Event):
    """Its answer; status 0: none came. ``kernels``: the ids in a list."""

    call: int
    status: int
    kernels: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Ran(Event):
    """A line of the side file: the kernel began this cell, in process ``pid``. ``at`` is by the
    kernel's own clock reading."""

    session: str
    cell: int
    kernel: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class Fenced(Event):
    """A keeper or launcher has acknowledged a token. ``where`` names it and its process."""

    where: str
    kernel: str
    token: Token


@dataclass(frozen=True, kw_only=True)
class Acted(Event):
    """A keeper or launcher carried a call out under a token."""

    where: str
    kernel: str
    call: str
    token: Token


@dataclass(frozen=True, kw_only=True)
class Sampled(Event):
    """One process of ours. ``when``: before, during or after the work; sizes in bytes."""

    process: str
    pid: int
    rss: int
    fds: int
    when: str


@dataclass(frozen=True, kw_only=True)
class Listed(Event):
    """At the end: what one proxy says is there. ``phase`` as in ``Found``."""

    proxy: int
    kernels: tuple[str, ...]
    phase: str


@dataclass(frozen=True, kw_only=True)
class Found(Event):
    """At the end: a living process and whose it is. ``role``: kernel, keeper, stray. ``phase``:
    ``quiet``, when the work is done, or ``emptied``, when all kernels were deleted after it."""

    pid: int
    role: str
    phase: str
    kernel: str = ""
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Ended(Event):
    """The last event of a history that is whole."""


def encode(event: Event) -> str:
    """One line of JSON."""
    fields = {
        field.name: getattr(event, field.name)
        for field in dataclasses.fields(event)
        if getattr(event, field.name) != field.default
    }
    return json.dumps({"event": type(event).__name__, **fields}, separators=(",", ":"))


def decode(line: str) -> Event:
    """The event of a line. Raises ValueError when it is none."""
    try:
        value: dict[str, Any] = json.loads(line)
        kind = Event.kinds[value.pop("event")]
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no event: {line[:200]}") from error


def read_history(path: Path) -> Iterator[Event]:
    """The events of a file. Raises ValueError at a line that is none."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield decode(line)


class Recorder:
    """Writes events to a file, from any thread; numbers calls."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1 << 16)
        self._lock = threading.Lock()
        self._calls = 0

    def __repr__(self) -> str:
        return f"<Recorder {self._file.name} calls={self._calls}>"

    @staticmethod
    def now() -> float:
        """Seconds, of the clock that all events are timed by."""
        return time.monotonic()

    def write(self, event: Event) -> None:
        """Append one event."""
        line = encode(event) + "\n"
        with self._lock:
            self._file.write(line)

    def next_call(self) -> int:
        """A number for a REST call."""
        with self._lock:
            self._calls += 1
            return self._calls

    def close(self) -> None:
        """Write what is held back. Idempotent."""
        with self._lock:
            self._file.close()
