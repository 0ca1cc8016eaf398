"""Where the kernel's messages and the sessions meet: writes the log, routes what clients send.

The kernel side calls it as its ``KernelListener``; connections call ``accept``,
``acknowledged`` and ``losses``. Everything here is synchronous and runs on the loop's
thread, so each call is atomic to every other: an incarnation's end, the answers to what it
left and the lifecycle entry are one step that no connection can see half of.

It must not know websockets, HTTP or how a kernel is started.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from holdfast_protocol.errors import CloseCode, FrameError, InvalidState, LocalError
from holdfast_protocol.frames import ByeReason
from holdfast_protocol.jupyter import Message, encode_v1
from holdfast_protocol.pieces import Pieces
from holdfast_protocol.stream.keeper import SessionStream

from ..log.journal import Journal
from ..ports import KernelHost, KernelListener
from . import notices
from .clients.plain import Mark, PlainStream
from .gate import Gate, GateState, Verdict
from .losses import Losses
from .notices import Failure, Notices
from .requests import Request, RequestBook
from .sessions import Attachment, Session, Sessions

_log = structlog.get_logger(__name__)

# An iopub header is parsed only when it may be one of these: parsing each of 15,000 messages a
# second would be a large part of this process's work.
_STATUS = b'"status"'
_EXECUTE_INPUT = b'"execute_input"'

#: Sessions without a connection that may hold sockets to the kernel.
MAX_ABSENT_OPEN = 32


class Hub(KernelListener):
    """One kernel's log and sessions. ``epoch``: 16 random bytes, new with every log."""

    def __init__(
        self,
        *,
        epoch: bytes,
        journal: Journal,
        sessions: Sessions,
        gate: Gate,
        writer: Notices,
        on_change: Callable[[], None],
        on_state: Callable[[], None],
    ) -> None:
        self.epoch = epoch
        self.journal = journal
        self.sessions = sessions
        self.requests = RequestBook()
        self._gate = gate
        self._writer = writer
        self.losses = Losses(
            self.requests, writer, send=self._send, kernel_session=self._kernel_session
        )
        self._on_change = on_change
        self._on_state = on_state
        self._host: KernelHost | None = None
        self._marks: dict[int, Mark] = {}
        self._own_session = epoch.hex()
        self._begun_at = float("-inf")
        self._between = False

    def __repr__(self) -> str:
        return f"<Hub {self.journal} {self.sessions} {self._gate} {self.requests}>"

    @property
    def host(self) -> KernelHost:
        if self._host is None:
            raise InvalidState("the hub has no kernel side yet")
        return self._host

    @property
    def dead(self) -> bool:
        return self._gate.state is GateState.DEAD

    def bind(self, host: KernelHost) -> None:
        """Give it the kernel side, once; the two are made in this order because each needs the
        other."""
        self._host = host

    # --- what the kernel side tells (KernelListener) ---

    def published(self, v1: bytes | Pieces, message: Message) -> None:
        seq = self.journal.append(v1)
        if _STATUS in message.header or _EXECUTE_INPUT in message.header:
            self._watch_iopub(message, seq)
        for session in self.sessions.attached:
            session.wake()
        self._on_change()

    def answered(self, session_id: str, v1: bytes | Pieces, message: Message) -> None:
        if self.sessions.find(session_id) is None:
            return  # a client that no one can be again: its answers are nobody's
        seq = self.journal.append(v1, session_id)
        try:
            parent_id = message.parent_id
            if message.channel != "stdin":
                self.requests.replied(parent_id, seq)
            elif message.msg_type == "input_request":
                self._marks[seq] = Mark.INPUT
                self.requests.input_requested(session_id, parent_id, seq)
        except FrameError as error:
            _log.warning("kernel.unreadable_header", error=str(error))
        self._wake(session_id)
        self._on_change()

    def lost(self, count: int, reason: str) -> None:
        """Shown in every cell that the kernel may have been speaking to."""
        _log.warning("kernel.lost", count=count, why=reason)
        for request in self.requests.all_given():
            self._publish(self._writer.lost(self._kernel_session(), request, count, reason))

    def incarnation_ended(self, incarnation: int, state: str, reason: str) -> None:
        """Answers first, then the lifecycle entry, so that who reads up to it has them."""
        _log.info("kernel.ended", incarnation=incarnation, state=state, why=reason)
        dead = state == "dead"
        self._between = True
        failure = notices.died(reason) if dead else notices.restarted(reason)
        for request in self.requests.end_incarnation():
            self._answer(request, failure)
        for held in self._gate.close(dead=dead):
            waiting = self.requests.find(held.message.msg_id)
            if waiting is not None:
                self._answer(waiting, failure)
        note = self._writer.status(self._kernel_session(), state, reason if dead else None)
        self._marks[self._publish(note)] = Mark.LIFECYCLE
        self._on_change()

    def incarnation_ready(self, incarnation: int) -> None:
        _log.info("kernel.ready", incarnation=incarnation)
        self._between = False
        self._gate.open(self._give)
        self._on_change()

    def state_changed(self) -> None:
        if self._host is not None and self._host.info().execution_state != "dead":
            self._gate.expect()
        self._on_state()

    # --- what connections do ---

    def session(self, session_id: str, *, durable: bool) -> Session:
        """The session with this id; a new one has its place at the log's head."""
        session, _ = self.sessions.add(session_id, durable=durable)
        self._open(session)
        return session

    def stream_of(self, session: Session) -> SessionStream:
        if session.stream is None:
            session.stream = SessionStream(
                session.session_id,
                self.journal,
                epoch=self.epoch,
                remembered=session.remembered,
                notices=partial(self.losses.notices, session.session_id),
            )
        return session.stream

    def plain_of(self, session: Session) -> PlainStream:
        if session.plain is None:
            session.plain = PlainStream(
                session.session_id,
                self.journal,
                mark_of=self._marks.get,
                input_open=self.requests.input_open,
            )
        return session.plain

    def attached(self, session: Session, attachment: Attachment, *, new: bool) -> None:
        """``attachment`` is the session's connection now. ``new``: tell the current state."""
        self._open(session)  # its sockets may have been let go between the dial and this
        old = self.sessions.attach(session, attachment)
        if old is not None:
            # Invariant: from here on not one byte of the old connection is taken, and nothing
            # was awaited since the stream decided for the new one.
            old.dismiss(ByeReason.SUPERSEDED, CloseCode.GONE, "a newer connection is there")
        info = self.host.info()
        if new and info.incarnation:
            state = "starting" if info.execution_state == "restarting" else info.execution_state
            note = self._writer.status(
                self._kernel_session(), state, info.reason if state == "dead" else None
            )
            self.journal.append(encode_v1(note), session.session_id)
        attachment.wake()
        self._on_change()

    def detached(self, session: Session, attachment: Attachment) -> None:
        """The connection is gone. A session that nobody can come back to goes with it."""
        if not self.sessions.detach(session, attachment):
            return
        if session.stream is not None:
            session.stream.detach()
        if session.plain is not None:
            session.plain.detach(left=attachment.left)
        self.left(session)
        self._on_change()

    def left(self, session: Session) -> None:
        """No connection of it is left, or came about at all: nobody can come back to it unless
        its client named it. Idempotent."""
        known = self.sessions.find(session.session_id) is session
        if known and not session.durable and session.attachment is None:
            self.forget(session)

    def forget(self, session: Session) -> None:
        self.sessions.remove(session)
        self.requests.forget_session(session.session_id)
        self._gate.forget_session(session.session_id)
        self.journal.index.remove_session(session.session_id)
        self.host.close_session(session.session_id)
        self.journal.trim()

    def accept(self, session: Session, message: Message, size: int) -> None:
        """One client message, once. Raises FrameError when its header cannot be read."""
        request = self.requests.accepted(session.session_id, message, head=self.journal.index.head)
        if message.channel == "stdin" and self._between:
            # the question died with its incarnation; the next one must not read the answer
            _log.info("kernel.input_dropped", session=session.session_id)
            return
        verdict = self._gate.submit(session.session_id, message, size)
        if verdict is Verdict.GIVE:
            self._give(session.session_id, message)
        elif verdict is not Verdict.HELD and request is not None:
            reason = self.host.info().reason or "it was shut down"
            full = verdict is Verdict.REFUSE_FULL
            held = self._gate.held_bytes
            self._refuse(request, notices.overloaded(held) if full else notices.is_dead(reason))

    def acknowledged(self, session: Session, seq: int) -> None:
        """The session's client has everything up to ``seq``."""
        self.requests.acknowledged(session.session_id, seq)
        self.journal.trim()
        floor = self.journal.index.floor
        for gone in [seq for seq in self._marks if seq <= floor]:
            del self._marks[gone]

    def give_up(self, request: Request) -> None:
        """The kernel was interrupted and will not answer it: say so in its place."""
        self._answer(request, notices.interrupted())

    def since_begun(self) -> float:
        """Seconds since the kernel last said that it begins a cell."""
        return self.sessions.clock() - self._begun_at

    def relieve_pressure(self, age: float) -> None:
        """The log is about to drop what was not read: the long absent hold nothing back."""
        for session in self.sessions:
            if self.sessions.absent_for(session) > age:
                known = self.journal.index.has_session(session.session_id)
                if known:
                    self.journal.index.set_holding(session.session_id, False)

        for name in self.sessions.take_holding():
            self.journal.index.set_holding(name, False)

    def remember_absent(self, age: float) -> None:
        """Of sessions absent for ``age`` keep only what they need if they come back."""
        gone: list[str] = []
        for session in self.sessions:
            if session.open or self.sessions.absent_for(session) <= age:
                continue
            if not self.journal.index.has_session(session.session_id):
                self.forget(session)  # its websocket never came about
                continue
            if session.plain is not None:
                session.plain.settle()
            gone += self.sessions.remember(session)
        for name in gone:
            self.requests.forget_session(name)
            self.journal.index.remove_session(name)
        if gone:
            self.journal.trim()

    def release_idle_sockets(self, age: float) -> None:
        """Close the kernel sockets of sessions absent for ``age`` with nothing open."""
        for session in self.sessions:
            if session.open and self.sessions.absent_for(session) > age:
                self._release(session)

    # --- inside ---

    def _watch_iopub(self, message: Message, seq: int) -> None:
        try:
            kind, parent_id = message.msg_type, message.parent_id
            if kind == "execute_input":
                self.requests.started(parent_id, message.content_dict().get("execution_count"))
                self._begun_at = self.sessions.clock()
            elif kind == "status":
                state = message.content_dict().get("execution_state")
                request = self.requests.find(parent_id)
                if state == "idle":
                    self.requests.idled(parent_id, seq)
                elif request is not None and request.msg_type != "execute_request":
                    # an execute_request has begun when its execute_input is there: a signal
                    # before that is lost on ipykernel, which ignores SIGINT between cells
                    request.started = True
        except FrameError as error:
            _log.warning("kernel.unreadable_header", error=str(error))

    def _open(self, session: Session) -> None:
        if not session.open:
            self._make_room()
            self.host.open_session(session.session_id)
            session.open = True

    def _make_room(self) -> None:
        """Each page load is a session, and each holds six descriptors here: the longest absent
        ones give theirs up, and get new ones if they come back."""
        absent = [s for s in self.sessions if s.open and s.absent_since is not None]
        if len(absent) < MAX_ABSENT_OPEN:
            return
        absent.sort(key=self.sessions.absent_for, reverse=True)
        for session in absent[: len(absent) - MAX_ABSENT_OPEN // 2]:
            self._release(session)

    def _release(self, session: Session) -> None:
        if not self.requests.awaited(session.session_id):
            self.host.close_session(session.session_id)
            session.open = False

    def _give(self, session_id: str, message: Message) -> None:
        """Never raises: what the kernel side cannot take is this request's misfortune, not that
        of the messages behind it, of the connection, or of an incarnation that is ready."""
        request = self.requests.find(message.msg_id)
        if request is not None:
            request.given = True
        try:
            self.host.send(session_id, message)
        except LocalError as error:
            _log.warning(
                "kernel.not_given", session=session_id, channel=message.channel, why=str(error)
            )
            if request is not None:
                self._refuse(request, notices.not_given(error))

    def _refuse(self, request: Request, failure: Failure) -> None:
        """The kernel never gets it: answer, and say so where no answer is expected, too."""
        if not request.expects_reply:
            self._publish(self._writer.stderr(self._kernel_session(), request, failure.text))
        self._answer(request, failure)

    def _answer(self, request: Request, failure: Failure) -> None:
        """Say in the log whatever of reply and idle the kernel did not say."""
        kernel = self._kernel_session()
        if request.expects_reply and not request.reply_seq:
            if request.msg_type == "execute_request":
                self._publish(self._writer.error_output(kernel, request, failure))
            reply = self._writer.error_reply(kernel, request, failure)
            request.reply_seq = self._send(request.session_id, reply)
        if not request.idle_seq:
            request.idle_seq = self._publish(self._writer.idle(kernel, request))

    def _publish(self, message: Message) -> int:
        seq = self.journal.append(encode_v1(message))
        for session in self.sessions.attached:
            session.wake()
        return seq

    def _send(self, session_id: str, message: Message) -> int:
        seq = self.journal.append(encode_v1(message), session_id)
        self._wake(session_id)
        return seq

    def _wake(self, session_id: str) -> None:
        session = self.sessions.find(session_id)
        if session is not None:
            session.wake()

    def _kernel_session(self) -> str:
        known = None if self._host is None else self._host.info().kernel_session
        return known or self._own_session
