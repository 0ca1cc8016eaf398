"""One session's story: shims that die and come back, a keeper that does, a kernel, and the wires.

Each method is one step that may happen at any time its name allows; nothing happens by itself.
The product's parts are ``ClientStream`` and the keeper's hub, talk and log; what connects them
is here. ``StreamJudge`` looks on.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from holdfast_launcher.keeper.serve.clients.talk import Turned
from holdfast_protocol.errors import InvalidState, RemoteError, SendBufferFull
from holdfast_protocol.jupyter import Message, decode_v1, encode_v1
from holdfast_protocol.stream.client import (
    ByeReceived,
    ClientStream,
    Delivered,
    EpochChanged,
    GapSeen,
    Predecessor,
    StreamResumed,
)
from holdfast_protocol.stream.state import ClientState
from simulation.stream_judge import StreamJudge
from simulation.stream_kernel import (
    SESSION,
    KeeperProcess,
    Kernel,
    NotedJournal,
    request,
    said_by_kernel,
)
from simulation.stream_wire import Wire

SEND_LIMIT = 6_000
#: Bytes that an end writes ahead of what has arrived.
AHEAD = 20_000
OTHER = "other"


class StreamWorld:
    """The whole scene. ``directory``: for the keepers' logs."""

    #: Whether a RESUME of a shim that is dead may still arrive: see ``test_a_ghost``.
    ghosts = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.now = 0.0
        self.judge = StreamJudge(SEND_LIMIT)
        self.kernel = Kernel()
        self.keepers = itertools.count(1)
        self.shims = itertools.count(1)
        self.messages = itertools.count(1)
        self._accepted_by: dict[str, bytes] = {}
        self._journals: dict[bytes, NotedJournal] = {}
        self.wires: list[Wire] = []
        self.wire: Wire | None = None
        self.keeper = self.new_keeper()
        self.client = self.new_client()
        self.sent: list[str] = []
        self.failed: set[str] = set()
        self.kernel_ready()

    def __repr__(self) -> str:
        return f"<StreamWorld {self.client!r} {self.keeper!r} {self.wires}>"

    # --- processes ---

    def new_keeper(self) -> KeeperProcess:
        directory = self._directory / f"keeper-{next(self.keepers)}"
        number = int(directory.name.rpartition("-")[2])
        keeper = KeeperProcess(number, self.kernel, directory, lambda: self.now)
        self._journals[keeper.epoch] = keeper.journal
        return keeper

    @property
    def _journal(self) -> NotedJournal:
        """The log that the client reads; of a keeper that is gone, as long as bytes of it come."""
        return self._journals[self.client.epoch]

    def new_client(self, predecessor: Predecessor | None = None) -> ClientStream:
        self.shim = next(self.shims)
        self.messages = itertools.count(1)
        client_id = self.shim.to_bytes(16, "big")
        return ClientStream(client_id, limit_bytes=SEND_LIMIT, predecessor=predecessor)

    def shim_dies(self, *, remembers: bool) -> None:
        """The notebook server is killed; the next one has its state file, or has not."""
        before = None
        if remembers and self.client.numbered:
            before = Predecessor(self.client.epoch, self.client.consumed_up_to)
        self.client_notices()
        if not self.ghosts:
            for wire in self.wires:
                if not wire.talk._attached:
                    wire.cut(0, 0)
        self.client, self.sent, self.failed = self.new_client(before), [], set()

    def keeper_dies(self) -> None:
        """Another keeper adopts the kernel, if there is one: a new log, a new epoch."""
        for wire in self.wires:
            wire.broken, wire.keeper_there = True, False
            wire.up.clear()
        self.keeper.journal.close()
        self.keeper = self.new_keeper()

    # --- connections ---

    def dial(self) -> None:
        """The client believes that it has no connection, and opens one."""
        assert self.wire is None
        self.now += 0.5
        session = self.keeper.hub.session(SESSION, durable=True)
        wire = Wire(len(self.wires) + 1, self.keeper.hub, session)
        self.wires.append(wire)
        self.wire = wire
        wire.client_writes(self.client.connect())

    def client_notices(self) -> None:
        """The client's end of its connection is closed; what it wrote may still be on its way."""
        self.client.disconnected()
        if self.wire is not None:
            self.wire.client_there = False
            self.wire.down.clear()
            self.wire = None

    def keeper_notices(self, wire: Wire) -> None:
        """The keeper's end of a connection is closed."""
        wire.keeper_there = False
        wire.broken = True
        wire.up.clear()
        wire.hub.detached(wire.talk.session, wire)

    def keeper_reads(self, wire: Wire, size: int) -> None:
        for data in wire.keeper_takes(size):
            if wire.dismissed or not wire.keeper_there:
                return
            self._keeper_takes(wire, data)
            self.judge.given(self.kernel)

    def _keeper_takes(self, wire: Wire, data: bytes) -> None:
        accept = wire.hub.accept

        def noted(session: object, message: Message, length: int) -> None:
            self.judge.accepted(message.msg_id, self.kernel)
            self._accepted_by[message.msg_id] = self.keeper.epoch
            accept(session, message, length)  # type: ignore[arg-type]

        wire.hub.accept = noted  # type: ignore[assignment, method-assign]
        try:
            turned = wire.talk.binary(data, wire)
        except (RemoteError, InvalidState) as error:
            self.judge.fail("WELCOME", f"the keeper refuses a frame: {error}")
        finally:
            del wire.hub.accept
        if self.keeper.first_place is None and self.keeper.journal.index.has_session(SESSION):
            self.keeper.first_place = self.keeper.journal.index.acknowledged(SESSION)
        if isinstance(turned, Turned):
            self._turned_away(wire, turned)

    def _turned_away(self, wire: Wire, turned: Turned) -> None:
        if wire is self.wire:
            self.judge.fail("WELCOME", f"the client is turned away: {turned.message}")
        self.keeper_notices(wire)

    def keeper_writes(self, wire: Wire) -> None:
        if wire.dismissed or not wire.keeper_there or len(wire.down) > AHEAD:
            return
        wire.keeper_writes(wire.talk.output())

    def keeper_acks(self, wire: Wire) -> None:
        if not wire.dismissed and wire.keeper_there and wire.talk.ack_pending:
            wire.keeper_writes(wire.talk.take_ack())

    def client_reads(self, size: int) -> None:
        wire = self.wire
        assert wire is not None
        for data in wire.client_takes(size):
            if self.wire is not wire:
                return
            self._client_takes(data)

    def _client_takes(self, data: bytes) -> None:
        known = self.client.numbered
        try:
            events = self.client.receive(data)
        except RemoteError as error:
            self.judge.fail("WELCOME", f"the client refuses a frame: {error}")
        changed = any(isinstance(event, EpochChanged) for event in events)
        for event in events:
            match event:
                case EpochChanged(failed):
                    self.failed |= {_id_of(message) for message in failed}
                case StreamResumed() if changed or not known:
                    self.judge.begins(self.client, stranger=changed)
                case Delivered(seq, message):
                    self.judge.delivered(self._journal, seq, message)
                case GapSeen(first, last):
                    self.judge.gap(self._journal, first, last)
                case ByeReceived(bye):
                    if not bye.come_back:
                        self.judge.fail("WELCOME", f"the client is told to go: {bye}")
                    self.client_notices()

    # --- the client's application ---

    @property
    def unanswered(self) -> int:
        """Requests that the keeper may have open. The notices of a gap have to fit into the log,
        or they make the next gap: see docs/design/proofs.md."""
        return len(set(self._accepted_by) - set(self.judge.replied)) + len(
            self.client.unacknowledged
        )

    def client_sends(self, size: int) -> None:
        msg_id = f"{self.shim}-{next(self.messages)}"
        try:
            self.client.send(encode_v1(request(msg_id, size)))
        except SendBufferFull:
            return
        self.sent.append(msg_id)

    def client_writes(self, max_bytes: int) -> None:
        assert self.wire is not None
        if len(self.wire.up) <= AHEAD and (frame := self.client.next_frame(max_bytes)) is not None:
            self.wire.client_writes(frame)

    def client_consumes(self, share: float) -> None:
        low, high = self.client.consumed_up_to, self.client.position
        self.client.consumed(low + int((high - low) * share))
        self.judge.consumed(self.client)

    def client_acks(self) -> None:
        if self.wire is not None and (ack := self.client.take_ack()) is not None:
            self.wire.client_writes(ack)

    # --- the kernel ---

    def kernel_says(self, size: int) -> None:
        """One line, of a request that it works on if there is one."""
        parent = self.kernel.open[0].message if self.kernel.open else None
        content = {"name": "stdout", "text": "y" * size}
        self._publish("stream", parent, content)

    def kernel_answers(self) -> None:
        """The oldest request that is open."""
        done = self.kernel.open.pop(0)
        wire_form, message = said_by_kernel(
            f"r-{done.message.msg_id}", "execute_reply", done.message, {"status": "ok"}, "shell"
        )
        self.keeper.hub.answered(done.session, wire_form, message)
        self._publish("status", done.message, {"execution_state": "idle"})

    def kernel_answers_other(self, size: int) -> None:
        """Something for the other page alone, if there is one."""
        wire_form, message = said_by_kernel("o", "comm_msg", None, {"text": "z" * size}, "shell")
        self.keeper.hub.answered(OTHER, wire_form, message)

    def _publish(self, kind: str, parent: Message | None, content: dict[str, object]) -> None:
        wire_form, message = said_by_kernel("p", kind, parent, content)
        self.keeper.hub.published(wire_form, message)

    def kernel_ends(self, state: str) -> None:
        """``restarting``: it crashed; ``starting``: asked to; ``dead``: for good."""
        kernel = self.kernel
        kernel.ready, kernel.state = False, state
        kernel.open.clear()
        self.keeper.hub.incarnation_ended(kernel.incarnation, state, "it was killed")

    def kernel_ready(self) -> None:
        """The next incarnation answers; one that was dead was started again."""
        kernel = self.kernel
        if kernel.state == "dead":
            kernel.state = "starting"
            self.keeper.hub.state_changed()
        kernel.incarnation += 1
        kernel.ready, kernel.state = True, "idle"
        self.keeper.hub.incarnation_ready(kernel.incarnation)

    # --- others, and time ---

    def other_page(self, *, leaves: bool) -> None:
        """Another page of the same kernel takes a place in the log, or is forgotten."""
        hub = self.keeper.hub
        if leaves and hub.sessions.find(OTHER) is not None:
            hub.forget(hub.session(OTHER, durable=True))
        elif not leaves:
            hub.session(OTHER, durable=True)
            hub.journal.index.add_session(OTHER)

    def long_absence(self, age: float) -> None:
        """Who has no connection is away for ``age`` seconds more: only its numbers are kept."""
        self.now += age
        self.keeper.hub.relieve_pressure(age)
        self.keeper.hub.remember_absent(age)

    def flow(self, *, rounds: int) -> None:
        """A connection, and everything on its way in both directions, but no acknowledgements."""
        if self.wire is not None and (self.wire.broken or self.wire.dismissed):
            self.client_notices()
        if self.wire is None:
            self.dial()
        for _ in range(rounds):
            wire = self.wire
            if wire is None:
                return
            self.client_writes(1 << 16)
            self.keeper_reads(wire, len(wire.up))
            self.keeper_writes(wire)
            self.client_reads(len(wire.down))

    # --- the end ---

    def settle(self) -> None:
        """Both live and nothing is lost any more. Raises Broken when a promise is not kept."""
        if not self.kernel.ready:
            self.kernel_ready()
            self.judge.given(self.kernel)
        for wire in [w for w in self.wires if w is not self.wire and w.keeper_there]:
            self.keeper_notices(wire)
        if self.wire is not None and (self.wire.broken or self.wire.dismissed):
            self.client_notices()
        for _ in range(150):
            if self.wire is None:
                self.dial()
            if not self._pump():
                break
        self._judge_end()

    def _pump(self) -> bool:
        """One round of everything; whether anything is left to do."""
        wire = self.wire
        assert wire is not None
        self.client_writes(1 << 16)
        self.keeper_reads(wire, len(wire.up))
        if self.kernel.open:
            self.kernel_answers()
        self.keeper_writes(wire)
        self.keeper_acks(wire)
        self.client_reads(len(wire.down))
        self.client_consumes(1.0)
        self.client_acks()
        self.judge.look(self.client, self.keeper, self.kernel)
        quiet = not (wire.up or wire.down or self.kernel.open or self.client.has_more)
        stream = self.keeper.hub.stream_of(wire.talk.session)
        behind = stream.has_more or self.client.position < stream.sent
        live = self.client.state is ClientState.LIVE
        return not quiet or behind or not live or bool(self.client.unacknowledged)

    def _judge_end(self) -> None:
        fail = self.judge.fail
        if self.client.unacknowledged:
            fail("EVENTUALLY", f"not accepted: {self.client!r}")
        given = {one.message.msg_id for one in self.kernel.given}
        for msg_id in self.sent:
            if msg_id in self.failed:
                continue
            told = self.judge.replied[msg_id]
            if told == 0 and not self._epoch_lost(msg_id):
                fail("EVENTUALLY", f"{msg_id} has no answer; given: {msg_id in given}")
            if told > 1:
                fail("EVENTUALLY", f"{msg_id} has {told} answers")
        index = self.keeper.journal.index
        if index.next_for(SESSION, self.client.position) is not None:
            fail("EVENTUALLY", f"not told: {self.client!r} {index!r}")

    def _epoch_lost(self, msg_id: str) -> bool:
        """It was accepted by a keeper that is gone, so its answer is nobody's."""
        return self._accepted_by.get(msg_id) != self.keeper.epoch


def _id_of(message: bytes) -> str:
    return decode_v1(message).msg_id
