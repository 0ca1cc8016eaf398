"""A kernel and a keeper process for the stream's stories: the keeper's own hub over a kernel side
that only notes what it is given, and a journal that also remembers what it forgot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast_launcher.keeper.log.journal import Journal
from holdfast_launcher.keeper.ports import KernelHost, KernelInfo
from holdfast_launcher.keeper.serve.gate import Gate
from holdfast_launcher.keeper.serve.hub import Hub
from holdfast_launcher.keeper.serve.notices import Notices
from holdfast_launcher.keeper.serve.sessions import Sessions
from holdfast_protocol.errors import InvalidState
from holdfast_protocol.jupyter import Message, encode_v1
from holdfast_protocol.pieces import Pieces

SESSION = "s"
#: Bytes that a log may hold, and messages that may wait for a kernel.
LOG_BYTES = 60_000
GATE_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class Given:
    """A client message as the kernel got it."""

    incarnation: int
    session: str
    message: Message


class Kernel(KernelHost):
    """The kernel, which outlives keepers. ``ready``: it takes messages."""

    def __init__(self) -> None:
        self.incarnation = 0
        self.ready = False
        self.state = "starting"
        self.given: list[Given] = []
        #: Given to the present incarnation by the present keeper, and not answered.
        self.open: list[Given] = []
        self.sessions: set[str] = set()

    def info(self) -> KernelInfo:
        reason = "it was killed" if self.state == "dead" else None
        return KernelInfo(self.incarnation, self.state, reason, None, f"k{self.incarnation}")

    def open_session(self, session_id: str) -> None:
        self.sessions.add(session_id)

    def close_session(self, session_id: str) -> None:
        self.sessions.discard(session_id)

    def send(self, session_id: str, message: Message) -> None:
        if not self.ready or session_id not in self.sessions:
            raise InvalidState("nobody takes this")
        given = Given(self.incarnation, session_id, message)
        self.given.append(given)
        self.open.append(given)

    async def start(self) -> None:
        """The story starts it."""

    async def interrupt(self) -> None:
        """No story interrupts."""

    async def restart(self) -> None:
        """The story restarts it."""

    async def shutdown(self, *, now: bool) -> None:
        """The story ends it."""


class NotedJournal(Journal):
    """Remembers each entry for the judge."""

    def __init__(self, directory: Path) -> None:
        # All in memory: a file for each entry would make the stories slow.
        super().__init__(directory, memory_bytes=LOG_BYTES, disk_bytes=0, burst_bytes=1 << 30)
        self.noted: dict[int, tuple[bytes, str | None]] = {}

    def append(self, data: bytes | Pieces, audience: str | None = None) -> int:
        seq = super().append(data, audience)
        self.noted[seq] = (bytes(data), audience)
        return seq


class KeeperProcess:
    """One keeper: a hub and a log, with an epoch of their own."""

    def __init__(
        self, number: int, kernel: Kernel, directory: Path, clock: Callable[[], float]
    ) -> None:
        self.epoch = number.to_bytes(16, "big")
        self.journal = NotedJournal(directory)
        self.gate = Gate(GATE_BYTES)
        #: Where the session's place in this log began; None: it has none yet.
        self.first_place: int | None = None
        self._ids = iter(range(1, 1_000_000))
        stamp = "2026-01-01T00:00:00.000000Z"
        self.hub = Hub(
            epoch=self.epoch,
            journal=self.journal,
            sessions=Sessions(clock),
            gate=self.gate,
            writer=Notices(new_id=lambda: f"n{number}-{next(self._ids)}", now=lambda: stamp),
            on_change=lambda: None,
            on_state=lambda: None,
        )
        kernel.sessions.clear()
        kernel.open.clear()  # answers to a keeper that is gone are nobody's
        self.hub.bind(kernel)
        if kernel.ready:
            self.hub.incarnation_ready(kernel.incarnation)

    def __repr__(self) -> str:
        return f"<KeeperProcess {self.epoch[-1]} {self.hub!r}>"


def request(msg_id: str, size: int) -> Message:
    """An execute_request of about ``size`` bytes."""
    header = {"msg_id": msg_id, "msg_type": "execute_request", "session": SESSION}
    return Message.from_dicts(channel="shell", header=header, content={"code": "x" * size})


def said_by_kernel(
    msg_id: str, kind: str, parent: Message | None, content: dict[str, Any], channel: str = "iopub"
) -> tuple[bytes, Message]:
    """A message of the kernel, and its wire form."""
    header = {"msg_id": msg_id, "msg_type": kind, "session": "kernel"}
    above = {} if parent is None else dict(parent.header_dict)
    message = Message.from_dicts(channel=channel, header=header, parent=above, content=content)
    return encode_v1(message), message
