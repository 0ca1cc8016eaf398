"""All connections to one kernel incarnation, and what the keeper itself asks on them.

It signs what goes out, verifies what comes, recognises the answers to the keeper's own requests
(which no client ever sees), and turns the rest into messages. It knows nothing of processes and
restarts: an incarnation ends, its wire is closed, and the next one gets a new wire. A message
queued for the old kernel dies with it, which is the point: sockets that outlive a kernel give
its queue to the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
import zmq

from holdfast_protocol.errors import FrameError, InvalidState
from holdfast_protocol.jupyter import Message, lay_out_v1
from holdfast_protocol.pieces import Pieces

from .connection import Connection
from .iopub import IopubDrain
from .signing import SignatureError, Signer
from .sockets import SessionSockets

#: What one channel of one session may have waiting for a kernel that does not read, in bytes.
SEND_BOUND: Final = 64 * 1024 * 1024
#: What the kernel may have published and the loop not yet taken, in bytes.
IOPUB_BOUND: Final = 128 * 1024 * 1024

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WireEvents:
    """Whom a wire tells. All are called on the loop, in order."""

    #: (v1, message): from iopub; ``own`` echoes are filtered out by the owner.
    published: Callable[[bytes | Pieces, Message], None]
    #: (session id, v1, message)
    answered: Callable[[str, bytes | Pieces, Message], None]
    #: An answer to a request of the keeper's own.
    own_answer: Callable[[Message], None]
    #: The SUB is connected; called at every connection.
    connected: Callable[[], None]


class Wire:
    """Sockets of one incarnation. ``open``, ``close`` and ``send`` are per client session."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        connection: Connection,
        events: WireEvents,
        *,
        send_bound: int = SEND_BOUND,
        iopub_bound: int = IOPUB_BOUND,
    ) -> None:
        self._context = context
        self._connection = connection
        self._events = events
        self._send_bound = send_bound
        self._signer = Signer(connection.key, connection.scheme)
        self.own_session: Final = f"holdfast-{uuid.uuid4().hex}"
        self._count = 0
        self._pending: dict[str, asyncio.Future[Message]] = {}
        self._sessions: dict[str, SessionSockets] = {}
        self._own = SessionSockets(context, connection, self._own_received, bound=send_bound)
        self._iopub = IopubDrain(
            context, connection, self._published, events.connected, bound=iopub_bound
        )
        self.accepting = True
        self.refused = 0
        self._parent: tuple[bytes, dict[str, Any]] = (b"", {})

    def __repr__(self) -> str:
        return (
            f"Wire({len(self._sessions)} sessions, {self._iopub!r},"
            f" accepting={self.accepting}, {self.refused} refused)"
        )

    # -- clients

    def open(self, session_id: str) -> None:
        """Idempotent."""
        if session_id not in self._sessions:
            self._sessions[session_id] = SessionSockets(
                self._context,
                self._connection,
                lambda channel, raw: self._answered(session_id, channel, raw),
                bound=self._send_bound,
            )

    def close_session(self, session_id: str) -> int:
        """Close a session's sockets; how many of its requests had no answer. Idempotent."""
        sockets = self._sessions.pop(session_id, None)
        if sockets is None:
            return 0
        sockets.close()
        return sockets.unanswered

    def send(self, session_id: str, message: Message) -> None:
        """Raises InvalidState (no such session or channel) or SendBufferFull.

        While the incarnation is being ended nothing goes to the kernel any more; it is dropped
        here and answered as "not answered" by the one who keeps the requests.
        """
        if not self.accepting:  # before anything else: its sockets may be closed already
            return
        sockets = self._sessions.get(session_id)
        if sockets is None:
            raise InvalidState(f"session {session_id!r} is not open")
        parts = (message.header, message.parent, message.metadata, message.content)
        try:
            sockets.send(message.channel, self._signer.wrap(parts, message.buffers))
        except KeyError:
            raise InvalidState(f"clients cannot write to {message.channel!r}") from None

    def stop_accepting(self) -> None:
        """Give the kernel nothing more from clients; what waits here is forgotten."""
        self.accepting = False
        for sockets in self._sessions.values():
            sockets.discard()

    # -- the keeper's own requests

    def ask(self, channel: str, msg_type: str, content: dict[str, Any]) -> asyncio.Future[Message]:
        """Send a request of our own; the future is its reply. Cancel it to forget it."""
        self._count += 1
        msg_id = f"{self.own_session}_{self._count}"
        message = Message.from_dicts(
            channel=channel,
            header={
                "msg_id": msg_id,
                "msg_type": msg_type,
                "session": self.own_session,
                "username": "holdfast",
                "date": datetime.now(UTC).isoformat(),
                "version": "5.3",
            },
            content=content,
        )
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[msg_id] = future
        future.add_done_callback(lambda _: self._pending.pop(msg_id, None))
        parts = (message.header, message.parent, message.metadata, message.content)
        self._own.send(channel, self._signer.wrap(parts))
        return future

    def is_own(self, message: Message) -> bool:
        """Whether ``message`` is about a request of our own."""
        return message.parent_dict.get("session") == self.own_session

    # -- the end

    async def drain(self, *, quiet: float = 0.02, bound: float = 30.0, eof: float = 0.5) -> bool:
        """After the process ended: deliver what it still said; whether that was all.

        The kernel's sockets are closed, so the SUB sees the end of its stream after the last
        byte; a child of the kernel that inherited the socket can hide it, hence ``eof``. Then
        everything is read until nothing has come for ``quiet`` seconds. ``bound`` in all: a dead
        process's bytes come to an end, but not those of a child that has its sockets.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + bound
        try:
            async with asyncio.timeout(eof):
                await self._iopub.disconnected.wait()
        except TimeoutError:
            _log.debug("kernel_stream_end_unseen")
        while loop.time() < deadline:
            before = self._iopub.taken
            read = self._turn()
            await asyncio.sleep(quiet)
            read += self._turn()
            if self._iopub.idle and self._iopub.taken == before and not read:
                return True
        _log.warning("kernel_drain_cut_short", waiting=self._iopub.waiting_bytes)
        return False

    def _turn(self) -> int:
        sockets = [self._own, *self._sessions.values()]
        return sum(each.turn() for each in sockets)

    def close(self) -> None:
        """Close every socket and forget every request. Idempotent."""
        self.accepting = False
        for sockets in (self._own, *self._sessions.values()):
            sockets.close()
        self._sessions.clear()
        self._iopub.close()
        for future in list(self._pending.values()):
            future.cancel()

    # -- what comes

    def _parse(self, channel: str, raw: list[bytes]) -> tuple[bytes | Pieces, Message] | None:
        """Verify and make a message; None (and a count) for what the kernel did not sign."""
        try:
            parts = self._signer.unwrap(raw)
            message = Message(channel, parts[0], parts[1], parts[2], parts[3], tuple(parts[4:]))
            self._parse_headers(message)
        except (SignatureError, FrameError) as error:
            self.refused += 1
            _log.warning("kernel_message_refused", channel=channel, error=str(error))
            return None
        return lay_out_v1(channel, parts), message

    def _parse_headers(self, message: Message) -> None:
        """Fill the message's cached headers, faster than it would: this is the hot path.

        Messages of one cell have the same parent, byte for byte; they share its dictionary,
        which nobody changes. Raises FrameError.
        """
        cache = message.__dict__
        if message.parent == self._parent[0]:
            cache["parent_dict"] = self._parent[1]
        else:
            self._parent = message.parent, message.parent_dict
        with contextlib.suppress(msgspec.DecodeError):
            header = msgspec.json.decode(message.header)
            if isinstance(header, dict):
                cache["header_dict"] = header
                return
        _ = message.header_dict  # not what msgspec takes: the standard library decides

    def _published(self, raw: list[bytes]) -> None:
        parsed = self._parse("iopub", raw)
        if parsed is not None:
            self._events.published(*parsed)

    def _answered(self, session_id: str, channel: str, raw: list[bytes]) -> None:
        parsed = self._parse(channel, raw)
        if parsed is None:
            return
        sockets = self._sessions.get(session_id)
        if sockets is not None and channel != "stdin":
            sockets.unanswered = max(0, sockets.unanswered - 1)
        self._events.answered(session_id, *parsed)

    def _own_received(self, channel: str, raw: list[bytes]) -> None:
        parsed = self._parse(channel, raw)
        if parsed is None:
            return
        message = parsed[1]
        self._events.own_answer(message)
        future = self._pending.get(message.parent_id)
        if future is not None and not future.done():
            future.set_result(message)


def content_of(message: Message) -> dict[str, Any]:
    """A reply's content; empty when it is not an object."""
    try:
        value = json.loads(message.content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
