"""Bugs in the stream's parts, put in by a test for as long as it runs, and the claim each breaks.

A judge that never complains proves nothing. Each bug is one that somebody could make: what it
replaces is the line of the product that prevents it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from holdfast_launcher.keeper.log.journal import Journal
from holdfast_launcher.keeper.serve.gate import Gate
from holdfast_launcher.keeper.serve.hub import Hub
from holdfast_launcher.keeper.serve.requests import RequestBook
from holdfast_protocol.frames import ClientData
from holdfast_protocol.log import LogIndex
from holdfast_protocol.stream.client import ClientStream
from holdfast_protocol.stream.keeper import SessionStream
from simulation.stream_kernel import Given
from simulation.stream_wire import Wire
from simulation.stream_world import StreamWorld

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Bug:
    """``claims``: any of these may be the one that is seen first."""

    name: str
    plant: Plant
    claims: tuple[str, ...]


def _no_deduplication(patch: pytest.MonkeyPatch) -> None:
    def take(self: SessionStream, frame: ClientData) -> list[Any]:
        return [self._accept(message) for message in frame.messages]

    follow = ClientStream._continue

    def from_acknowledged(self: ClientStream, frame: Any) -> None:
        follow(self, replace(frame, accepted=self.accepted))

    patch.setattr(SessionStream, "_take_data", take)
    # The client, too: it would not send again what RESUMED says was accepted.
    patch.setattr(ClientStream, "_continue", from_acknowledged)


def _newest_held_first(patch: pytest.MonkeyPatch) -> None:
    opened = Gate.open

    def open_(self: Gate, give: Any) -> None:
        self._held.reverse()
        opened(self, give)

    patch.setattr(Gate, "open", open_)


def _queue_outlives_the_kernel(patch: pytest.MonkeyPatch) -> None:
    """What the kernel had not read yet waits for the next one, as in a DEALER socket's queue."""
    ends, ready = StreamWorld.kernel_ends, StreamWorld.kernel_ready
    queued: list[Given] = []

    def keep(self: StreamWorld, state: str) -> None:
        if self.kernel.open:
            queued[:] = [self.kernel.open[-1]]
            self.kernel.given.remove(queued[0])
            self.judge._given -= 1
        ends(self, state)

    def give(self: StreamWorld) -> None:
        ready(self)
        for given in queued:
            self.kernel.send(given.session, given.message)
        queued.clear()

    patch.setattr(StreamWorld, "kernel_ends", keep)
    patch.setattr(StreamWorld, "kernel_ready", give)


def _offset_ignored(patch: pytest.MonkeyPatch) -> None:
    """Each piece of a long entry is its first one."""
    read = Journal.read_part

    def first(self: Journal, seq: int, offset: int, length: int) -> Any:
        size = sum(map(len, read(self, seq, offset, length)))
        return read(self, seq, 0, size)

    patch.setattr(Journal, "read_part", first)


def _ends_unanswered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RequestBook, "end_incarnation", lambda self: [])


def _lost_replies_not_replaced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hub, "show_loss", lambda self, session, loss: None)


def _silent_gap(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LogIndex, "loss_for", lambda self, session, after: None)


def _head_instead_of_acknowledged(patch: pytest.MonkeyPatch) -> None:
    """A new client of the session begins where the log ends, not where the last one was."""
    position = SessionStream._position

    def from_head(self: SessionStream, resume: Any) -> list[bytes]:
        index = self._log.index
        if not any(resume.epoch) and index.has_session(self.session_id):
            index.acknowledge(self.session_id, index.head)
        return position(self, resume)

    patch.setattr(SessionStream, "_position", from_head)


def _everybodys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LogIndex, "_find", lambda self, session, slot: slot)


def _chunk_from_the_start(patch: pytest.MonkeyPatch) -> None:
    """A half received entry is kept when the keeper begins it anew."""
    patch.setattr(ClientStream, "_drop_partial", lambda self: None)


def _acknowledged_when_written(patch: pytest.MonkeyPatch) -> None:
    set_sent = SessionStream._set_sent

    def acknowledge(self: SessionStream, seq: int) -> None:
        set_sent(self, seq)
        if self.acknowledged < seq <= self._log.index.head:
            self._log.index.acknowledge(self.session_id, seq)

    patch.setattr(SessionStream, "_set_sent", acknowledge)


def _no_send_limit(patch: pytest.MonkeyPatch) -> None:
    init = ClientStream.__init__

    def unlimited(self: ClientStream, client_id: bytes, **more: Any) -> None:
        init(self, client_id, **{**more, "limit_bytes": 1 << 30})

    patch.setattr(ClientStream, "__init__", unlimited)


def _same_attempt_again(patch: pytest.MonkeyPatch) -> None:
    connect = ClientStream.connect

    def again(self: ClientStream) -> bytes:
        self.attempt = 0
        return connect(self)

    patch.setattr(ClientStream, "connect", again)


def _old_connection_still_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Wire, "dismiss", lambda self, *args, **more: None)


def _resent_after_another_epoch(patch: pytest.MonkeyPatch) -> None:
    """What was not acknowledged is sent to the next keeper, too."""
    take = ClientStream._take_resumed

    def keep(self: ClientStream, frame: Any) -> list[Any]:
        before = self.unacknowledged if self.numbered and frame.epoch != self.epoch else ()
        events = take(self, frame)
        for message in before:
            self.send(message)
        return events

    patch.setattr(ClientStream, "_take_resumed", keep)


BUGS = [
    Bug("no deduplication", _no_deduplication, ("ONCE", "WELCOME")),
    Bug("resent after another epoch", _resent_after_another_epoch, ("ONCE",)),
    Bug("newest held first", _newest_held_first, ("ORDER",)),
    Bug("queue outlives the kernel", _queue_outlives_the_kernel, ("NEXT", "EVENTUALLY")),
    Bug("offset ignored", _offset_ignored, ("INTACT", "WELCOME")),
    Bug("ends unanswered", _ends_unanswered, ("EVENTUALLY",)),
    Bug("lost replies not replaced", _lost_replies_not_replaced, ("EVENTUALLY",)),
    Bug("silent gap", _silent_gap, ("CONTIGUOUS", "WELCOME")),
    Bug("head instead of acknowledged", _head_instead_of_acknowledged, ("CONTIGUOUS", "ACCEPTED")),
    Bug("everybody's", _everybodys, ("INTACT", "CONTIGUOUS")),
    Bug("chunk from the start", _chunk_from_the_start, ("INTACT", "WELCOME")),
    Bug("acknowledged when written", _acknowledged_when_written, ("ACCEPTED",)),
    Bug("no send limit", _no_send_limit, ("BOUNDED",)),
    Bug("same attempt again", _same_attempt_again, ("WELCOME",)),
    Bug("old connection still read", _old_connection_still_read, ("WELCOME", "ACCEPTED", "ONCE")),
]
