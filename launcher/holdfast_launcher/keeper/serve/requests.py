"""Which client requests are open: accepted, and their answer not yet proven to have arrived.

From this the keeper knows whom to answer when a kernel ends, and in which cells to show a gap.
Pure: it sees messages and seqs, sends nothing and reads no clock. What to say is ``notices``'.

A request is *unanswered* until its reply is in the log (requests that get none, such as
``comm_msg``: until idle), and *open* until its session has acknowledged both reply and idle.
Rejected: asking the log which entries a gap held (their bytes are gone by then).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from holdfast_protocol.jupyter import Message
from holdfast_protocol.log import Loss

#: Beyond this many open requests the oldest are forgotten: no session has so many cells.
MAX_OPEN = 65_536


@dataclass(slots=True)
class Request:
    """One accepted client request. ``reply_seq`` and ``idle_seq`` are 0 until they are known."""

    session_id: str
    msg_id: str
    msg_type: str
    channel: str
    header: bytes
    accepted_at: int
    given: bool = False
    started: bool = False
    #: From ``execute_input``: a reply in the kernel's place keeps the cell's number.
    execution_count: int | None = None
    reply_seq: int = 0
    idle_seq: int = 0

    @property
    def expects_reply(self) -> bool:
        return self.msg_type.endswith("_request")

    @property
    def answered(self) -> bool:
        return bool(self.reply_seq) if self.expects_reply else bool(self.idle_seq)

    @property
    def done_seq(self) -> int:
        """The seq with which everything was said; 0 when something is still to come."""
        if not self.idle_seq or (self.expects_reply and not self.reply_seq):
            return 0
        return max(self.idle_seq, self.reply_seq)


@dataclass(frozen=True, slots=True)
class Touched:
    """A request that a gap touched, and whether its end was in the gap."""

    request: Request
    reply_lost: bool
    idle_lost: bool


@dataclass(slots=True)
class _Input:
    """An ``input_request`` that a kernel waits on: its seq and the request that asks."""

    seq: int
    parent_id: str


@dataclass(slots=True)
class RequestBook:
    """All open requests of a kernel, oldest first."""

    _open: OrderedDict[str, Request] = field(default_factory=OrderedDict)
    _inputs: dict[str, _Input] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<RequestBook open={len(self._open)} inputs={len(self._inputs)}>"

    def __len__(self) -> int:
        return len(self._open)

    def accepted(self, session_id: str, message: Message, *, head: int) -> Request | None:
        """Note a client message; None when it is no request. ``head``: the log's, now."""
        if message.channel == "stdin":
            self._inputs.pop(session_id, None)
            return None
        msg_id = message.msg_id
        if not msg_id:
            return None
        request = Request(
            session_id, msg_id, message.msg_type, message.channel, message.header, head
        )
        self._open[msg_id] = request
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return request

    def find(self, msg_id: str) -> Request | None:
        return self._open.get(msg_id)

    def started(self, parent_id: str, execution_count: object = None) -> None:
        """The kernel began to work on it, as its ``execution_count`` if it is a cell."""
        request = self._open.get(parent_id)
        if request is not None:
            request.started = True
            if isinstance(execution_count, int):
                request.execution_count = execution_count

    def replied(self, parent_id: str, seq: int) -> None:
        """Its reply is in the log as ``seq``."""
        request = self._open.get(parent_id)
        if request is not None:
            request.reply_seq = seq
            request.started = True

    def idled(self, parent_id: str, seq: int) -> None:
        """Its idle is in the log as ``seq``: the kernel asks nothing more for it."""
        request = self._open.get(parent_id)
        if request is not None:
            request.idle_seq = seq
            self._forget_input(request.session_id, parent_id)

    def input_requested(self, session_id: str, parent_id: str, seq: int) -> None:
        """The kernel waits for input of ``session_id``; the question is entry ``seq``."""
        self._inputs[session_id] = _Input(seq, parent_id)

    def input_open(self, seq: int) -> bool:
        """Whether the ``input_request`` with this seq still waits for its answer."""
        return any(pending.seq == seq for pending in self._inputs.values())

    def waiting_to_start(self) -> bool:
        """Whether the kernel was given something that it has not begun."""
        return any(
            request.given and not request.started and not request.answered
            for request in self._open.values()
        )

    def running(self) -> list[Request]:
        """What the kernel works on at this moment, as far as it said."""
        return [
            request
            for request in self._open.values()
            if request.started and not request.answered and not request.idle_seq
        ]

    def anything_started(self) -> bool:
        return bool(self.running())

    def end_incarnation(self) -> list[Request]:
        """What was given to the kernel and not answered, oldest first. Clears open inputs."""
        self._inputs.clear()
        return [
            request for request in self._open.values() if request.given and not request.done_seq
        ]

    def touched(self, session_id: str, loss: Loss) -> list[Touched]:
        """The requests of ``session_id`` that were open while entries of the loss were logged."""
        return [
            Touched(request, _within(request.reply_seq, loss), _within(request.idle_seq, loss))
            for request in self._of(session_id)
            if request.accepted_at < loss.last
            and (not request.done_seq or request.done_seq >= loss.first)
        ]

    def all_given(self) -> list[Request]:
        """What the kernel may have been saying something about just now."""
        return [
            request for request in self._open.values() if request.given and not request.done_seq
        ]

    def acknowledged(self, session_id: str, seq: int) -> None:
        """``session_id`` has everything up to ``seq``: what ended there is closed."""
        closed = [request.msg_id for request in self._of(session_id) if 0 < request.done_seq <= seq]
        for msg_id in closed:
            del self._open[msg_id]

    def awaited(self, session_id: str) -> bool:
        """Whether the kernel still has something to say to ``session_id``, or to hear from it."""
        return session_id in self._inputs or any(not r.done_seq for r in self._of(session_id))

    def forget_session(self, session_id: str) -> None:
        for msg_id in [request.msg_id for request in self._of(session_id)]:
            del self._open[msg_id]
        self._inputs.pop(session_id, None)

    def _of(self, session_id: str) -> Iterator[Request]:
        return (r for r in self._open.values() if r.session_id == session_id)

    def _forget_input(self, session_id: str, parent_id: str) -> None:
        pending = self._inputs.get(session_id)
        if pending is not None and pending.parent_id == parent_id:
            del self._inputs[session_id]


def _within(seq: int, loss: Loss) -> bool:
    return loss.first <= seq <= loss.last
