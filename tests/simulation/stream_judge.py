"""What must hold of a stream's story, said by somebody who saw both ends and all that was logged.

Each complaint begins with the name of the claim that was broken, one of ``CLAIMS``.
"""

from __future__ import annotations

from collections import Counter

from holdfast_protocol.jupyter import decode_v1
from holdfast_protocol.stream.client import ClientStream
from simulation.stream_kernel import (
    GATE_BYTES,
    LOG_BYTES,
    SESSION,
    Given,
    KeeperProcess,
    Kernel,
    NotedJournal,
)

CLAIMS = {
    "ONCE": "the kernel gets each client message at most once",
    "ORDER": "the kernel gets one client's messages in the order in which they were sent",
    "NEXT": "what was accepted for an incarnation is never given to the next one",
    "EVENTUALLY": "when both live, each message is given to the kernel, or answered with an error",
    "CONTIGUOUS": "what the client is given goes on where it was, or is marked as a gap",
    "INTACT": "what the client is given is what was logged, and for it",
    "ACCEPTED": "no end believes that more was accepted, sent or acknowledged than was",
    "BOUNDED": "neither end holds more bytes than its bound",
    "WELCOME": "an honest client is never refused",
}


class Broken(AssertionError):
    """A claim was broken."""


class StreamJudge:
    """``limit``: unacknowledged bytes that the client may hold."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: The state of the kernel when a message was accepted: (incarnation, it took messages).
        self._accepted_in: dict[str, tuple[int, bool]] = {}
        self._given = 0
        #: How far the session was told everything, in each epoch.
        self._told: dict[bytes, int] = {}
        self._position = 0
        self.replied: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<StreamJudge: {len(self._accepted_in)} accepted, {self._given} given>"

    @staticmethod
    def fail(claim: str, text: str) -> None:
        assert claim in CLAIMS
        raise Broken(f"{claim}: {text}")

    # --- towards the kernel ---

    def accepted(self, msg_id: str, kernel: Kernel) -> None:
        """The keeper is about to decide about a message that it has just accepted."""
        self._accepted_in.setdefault(msg_id, (kernel.incarnation, kernel.ready))

    def given(self, kernel: Kernel) -> None:
        """Look at what the kernel was given since the last time."""
        while self._given < len(kernel.given):
            number, self._given = self._given, self._given + 1
            self._judge_given(kernel.given[number], kernel.given[:number])

    def _judge_given(self, new: Given, before: list[Given]) -> None:
        msg_id = new.message.msg_id
        if any(old.message.msg_id == msg_id for old in before):
            self.fail("ONCE", f"{msg_id} was given twice")
        sender, number = msg_id.split("-")
        for old in before:
            who, earlier = old.message.msg_id.split("-")
            if who == sender and int(earlier) > int(number):
                self.fail("ORDER", f"{msg_id} was given after {old.message.msg_id}")
        incarnation, took = self._accepted_in[msg_id]
        if new.incarnation != (incarnation if took else incarnation + 1):
            told = "took" if took else "waited for"
            self.fail("NEXT", f"{msg_id}, which {incarnation} {told}, came to {new.incarnation}")

    # --- towards the client ---

    def begins(self, client: ClientStream, *, stranger: bool) -> None:
        """A client is resumed for the first time in this epoch, at its ``position``.
        ``stranger``: its GAP, which comes next, tells it of what it never saw."""
        told = self._told.get(client.epoch)
        if told is not None and not stranger and client.position > told:
            self.fail("CONTIGUOUS", f"begins at {client.position}, but was told up to {told}")
        self._position = client.position

    def delivered(self, journal: NotedJournal, seq: int, message: bytes) -> None:
        missed = [
            between
            for between in range(self._position + 1, seq)
            if between in journal.noted and journal.noted[between][1] in (None, SESSION)
        ]
        if missed or seq <= self._position:
            self.fail("CONTIGUOUS", f"{seq} came after {self._position}, without {missed}")
        logged, audience = journal.noted.get(seq, (b"", None))
        if logged != message or audience not in (None, SESSION):
            self.fail("INTACT", f"{seq} is not what was logged")
        self._position = seq
        said = decode_v1(message)
        if said.msg_type.endswith("_reply"):
            self.replied[said.parent_id] += 1

    def gap(self, journal: NotedJournal, first: int, last: int) -> None:
        if first not in (0, self._position + 1) or last < self._position:
            self.fail("CONTIGUOUS", f"a gap of {first}..{last} after {self._position}")
        if last > journal.index.floor:
            self.fail("CONTIGUOUS", f"a gap up to {last}, and {journal.index.floor + 1} is there")
        self._position = last

    def consumed(self, client: ClientStream) -> None:
        """The application has what it was given up to there."""
        if client.numbered:
            told = self._told.get(client.epoch, 0)
            self._told[client.epoch] = max(told, client.consumed_up_to)

    # --- at each step ---

    def look(self, client: ClientStream, keeper: KeeperProcess, kernel: Kernel) -> None:
        """What holds between any two steps."""
        client.check_invariants()
        keeper.journal.index.check_invariants()
        self.given(kernel)
        if client.pending_bytes > self._limit and len(client.unacknowledged) > 1:
            self.fail("BOUNDED", f"the client holds {client.pending_bytes} bytes")
        if keeper.journal.index.size > LOG_BYTES or keeper.gate.held_bytes > GATE_BYTES:
            self.fail("BOUNDED", f"the keeper holds too much: {keeper!r}")
        session = keeper.hub.sessions.find(SESSION)
        stream = None if session is None else session.stream
        if stream is None:
            return
        stream.check_invariants()
        if stream.acknowledged > max(self._told.get(keeper.epoch, 0), self._start(keeper)):
            self.fail("ACCEPTED", f"{stream.acknowledged} acknowledged, and not consumed")
        if stream.client_id != client.client_id or client.epoch != keeper.epoch:
            return
        if not client.accepted <= stream.accepted <= client._furthest <= client.last_seq:
            self.fail("ACCEPTED", f"{client!r} and {stream!r}")

    def _start(self, keeper: KeeperProcess) -> int:
        """Where the session's place began, before which nothing was for it."""
        return keeper.first_place if keeper.first_place is not None else 0
