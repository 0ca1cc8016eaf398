"""The hub and its talks in one process: what the kernel side refuses, and what comes in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_launcher.keeper.log.journal import Journal
from holdfast_launcher.keeper.ports import KernelHost, KernelInfo
from holdfast_launcher.keeper.serve.clients.talk import StreamTalk, Turned
from holdfast_launcher.keeper.serve.gate import Gate, GateState
from holdfast_launcher.keeper.serve.hub import Hub
from holdfast_launcher.keeper.serve.notices import Notices
from holdfast_launcher.keeper.serve.reading import log_lines
from holdfast_launcher.keeper.serve.sessions import Attachment, Sessions
from holdfast_protocol.errors import CloseCode, InvalidState, SendBufferFull, StreamError
from holdfast_protocol.frames import ByeReason, ClientData, Resume, decode
from holdfast_protocol.jupyter import Message, decode_v1, encode_v1
from support.keeper_clients import execute, input_reply


class Host(KernelHost):
    """A kernel side that notes what it is given; ``full`` holds codes that it cannot take."""

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.given: list[str] = []
        self.full: set[str] = set()

    def info(self) -> KernelInfo:
        return KernelInfo(1, "idle", None, None, "kernel")

    def open_session(self, session_id: str) -> None:
        self.sessions.add(session_id)

    def close_session(self, session_id: str) -> None:
        self.sessions.discard(session_id)

    def send(self, session_id: str, message: Message) -> None:
        if session_id not in self.sessions:
            raise InvalidState(f"session {session_id} is not open")
        code = str(message.content_dict().get("code", message.msg_type))
        if code in self.full:
            raise SendBufferFull("the kernel has 64 bytes unread")
        self.given.append(code)

    async def start(self) -> None: ...
    async def interrupt(self) -> None: ...
    async def restart(self) -> None: ...
    async def shutdown(self, *, now: bool) -> None: ...


class Wire(Attachment):
    tunnel = None

    def wake(self) -> None: ...
    def dismiss(self, reason, code, detail, *, come_back=False) -> None: ...


class Bench:
    """A hub over a fake kernel side, and one stream session of it."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.ids = iter(range(1_000_000))
        self.host = Host()
        self.gate = Gate(1 << 20)
        self.hub = Hub(
            epoch=bytes(15) + b"\1",
            journal=Journal(directory, memory_bytes=1 << 20, disk_bytes=1 << 20),
            sessions=Sessions(lambda: self.now),
            gate=self.gate,
            writer=Notices(new_id=lambda: f"n{next(self.ids)}", now=lambda: "2026-01-01T00:00:00Z"),
            on_change=lambda: None,
            on_state=lambda: None,
        )
        self.hub.bind(self.host)
        self.wire = Wire()
        self.session = self.hub.session("s", durable=True)
        self.talk = StreamTalk(self.hub, self.session, may_execute=True)

    def resume(self) -> None:
        self.talk.binary(Resume(bytes(15) + b"\2", 1).encode(), self.wire)

    def send(self, *messages: Message) -> None:
        data = ClientData(self.session.accepted + 1, tuple(map(encode_v1, messages)))
        self.talk.binary(data.encode(), self.wire)

    def logged(self) -> list[Message]:
        journal = self.hub.journal
        seqs = range(journal.index.floor + 1, journal.index.head + 1)
        return [decode_v1(bytes(journal.read(seq))) for seq in seqs]

    def said(self, request: Message) -> list[str]:
        """What the log says about a request, in short."""
        return [
            f"{m.msg_type} {m.content_dict().get('ename') or ''}".strip()
            for m in self.logged()
            if m.parent_id == request.msg_id
        ]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.hub.journal.close()


OVERLOADED = ["error HoldfastOverload", "execute_reply HoldfastOverload", "status"]


def test_a_kernel_that_can_take_no_more_costs_that_request_only(bench: Bench) -> None:
    bench.hub.incarnation_ready(1)
    bench.resume()
    bench.host.full = {"two"}
    one, two, three = execute("one"), execute("two"), execute("three")
    bench.send(one, two, three)
    assert bench.host.given == ["one", "three"]
    assert bench.said(two) == OVERLOADED
    assert bench.said(one) == bench.said(three) == []
    bench.hub.incarnation_ended(1, "restarting", "asked to")
    assert bench.said(two) == OVERLOADED, "answered once"
    assert bench.session.accepted == 3


def test_a_comm_message_that_cannot_be_given_is_said_too(bench: Bench) -> None:
    bench.hub.incarnation_ready(1)
    bench.resume()
    bench.host.full = {"comm_msg"}
    comm = Message.from_dicts(channel="shell", header={"msg_id": "c", "msg_type": "comm_msg"})
    bench.send(comm)
    assert bench.said(comm) == ["stream", "status"]


def test_an_incarnation_gets_ready_whatever_of_the_held_it_cannot_take(bench: Bench) -> None:
    bench.resume()
    bench.host.full = {"two"}
    one, two, three = execute("one"), execute("two"), execute("three")
    bench.send(one, two, three)
    assert bench.host.given == []
    bench.hub.incarnation_ready(1)
    assert bench.gate.state is GateState.OPEN
    assert bench.host.given == ["one", "three"]
    assert bench.said(two) == OVERLOADED


def test_a_bad_message_does_not_take_the_batch_behind_it_along(bench: Bench) -> None:
    bench.hub.incarnation_ready(1)
    bench.resume()
    bad = Message.from_dicts(channel="iopub", header={"msg_id": "bad", "msg_type": "x"})
    with pytest.raises(StreamError, match="iopub"):
        bench.send(execute("one"), bad, execute("three"))
    assert bench.session.accepted == 3, "so the client sends none of them again"
    assert bench.host.given == ["one", "three"]


def test_sockets_let_go_between_dial_and_resume_are_made_again(bench: Bench) -> None:
    bench.hub.incarnation_ready(1)
    bench.now = 7200.0
    bench.hub.release_idle_sockets(3600.0)
    assert bench.host.sessions == set()
    bench.resume()
    bench.send(execute("one"))
    assert bench.host.given == ["one"]


def test_an_answer_to_a_question_of_the_last_incarnation_is_not_for_the_next(bench: Bench) -> None:
    bench.resume()
    bench.send(input_reply("before the first start it may be for an adopted kernel"))
    bench.hub.incarnation_ready(1)
    bench.hub.incarnation_ended(1, "restarting", "asked to")
    bench.send(input_reply("too late"), execute("one"))
    bench.hub.incarnation_ready(2)
    bench.send(input_reply("in time"))
    assert bench.host.given == ["input_reply", "one", "input_reply"]


def test_a_refused_resume_leaves_a_living_plain_connection_its_proof(bench: Bench) -> None:
    bench.resume()
    plain = bench.hub.plain_of(bench.session)
    plain.attach(b"n" * 8)
    bench.hub.journal.append(b"x" * 10)
    assert plain.next_entry() is not None
    ping = plain.take_ping()
    stale = StreamTalk(bench.hub, bench.session, may_execute=True)
    assert stale.binary(Resume(bytes(15) + b"\2", 1).encode(), bench.wire) is not None
    assert ping is not None
    assert plain.pong(ping) == 1


def test_the_log_says_what_went_while_it_was_read(bench: Bench) -> None:
    journal = bench.hub.journal
    for number in range(6):
        journal.append(encode_v1(execute(str(number))))
    lines = log_lines(journal, after=0, session_id=None, limit=10)
    assert json.loads(next(lines))["seq"] == 1
    journal.index.add_session("reader", 0)
    journal.index.acknowledge("reader", 4)
    journal.trim()
    rest = [json.loads(line) for line in lines]
    assert rest[0] == {"gap": {"first": 2, "last": 4}}
    assert [line["seq"] for line in rest[1:]] == [5, 6]


def test_absent_sessions_do_not_pile_up_sockets(bench: Bench) -> None:
    bench.hub.incarnation_ready(1)
    bench.resume()
    asking = bench.hub.session("asking", durable=True)
    bench.hub.accept(asking, execute("long"), 10)
    for number in range(200):
        bench.now += 1.0
        page = bench.hub.session(f"page {number}", durable=True)
        asked = execute("quick")
        bench.hub.accept(page, asked, 10)
        request = bench.hub.requests.find(asked.msg_id)
        assert request is not None
        # said by the kernel; that it arrived was never acknowledged
        request.reply_seq = request.idle_seq = 1
    assert {"s", "asking", "page 199"} <= bench.host.sessions, "attached, waited for, or new"
    assert len(bench.host.sessions) < 50
    bench.hub.attached(bench.hub.session("page 0", durable=True), Wire(), new=True)
    assert "page 0" in bench.host.sessions


DAYS = 24 * 3600.0


def go_away(bench: Bench, days: float = 8.0) -> None:
    """Everybody leaves, and the keeper's housekeeping runs when that is long ago."""
    for session in bench.hub.sessions:
        if session.attachment is not None:
            bench.hub.detached(session, session.attachment)
    bench.now += days * DAYS
    bench.hub.release_idle_sockets(3600.0)
    bench.hub.remember_absent(7 * DAYS)


def come_back(bench: Bench, *, seq: int, unacked: int, client: int = 2) -> Turned | None:
    bench.session = bench.hub.session("s", durable=True)
    bench.talk = StreamTalk(bench.hub, bench.session, may_execute=True)
    client_id = bytes(15) + bytes([client])
    resume = Resume(client_id, 9, bench.hub.epoch, seq, 0, unacked)
    return bench.talk.binary(resume.encode(), bench.wire)


def test_who_comes_back_after_long_is_given_to_the_kernel_once(bench: Bench) -> None:
    bench.hub.incarnation_ready(1)
    bench.resume()
    bench.send(*map(execute, ("one", "two", "three")))
    position = bench.hub.journal.index.head
    bench.talk.output()
    bench.hub.journal.append(encode_v1(execute("said meanwhile")))
    for request in bench.hub.requests.all_given():
        request.reply_seq = request.idle_seq = position
    go_away(bench)
    assert bench.hub.sessions.find("s") is None
    assert bench.hub.sessions.accepted("s") == 3
    assert come_back(bench, seq=position, unacked=2) is None
    data = ClientData(2, tuple(encode_v1(execute(code)) for code in ("two", "three", "four")))
    bench.talk.binary(data.encode(), bench.wire)
    assert bench.host.given == ["one", "two", "three", "four"]
    assert b"said meanwhile" in b"".join(bench.talk.output())


def test_a_position_that_was_never_given_is_refused_after_long_too(bench: Bench) -> None:
    bench.resume()
    go_away(bench)
    turned = come_back(bench, seq=50, unacked=1)
    assert turned is not None
    assert turned.close_code is CloseCode.POSITION


def test_whoever_is_waited_for_or_at_the_door_is_not_reduced(bench: Bench) -> None:
    bench.hub.incarnation_ready(1)
    bench.resume()
    bench.send(execute("takes days"))
    go_away(bench)
    assert bench.hub.sessions.find("s") is bench.session, "its cell runs"
    page = bench.hub.session("page", durable=True)
    bench.hub.attached(page, Wire(), new=True)
    bench.hub.detached(page, page.attachment)  # type: ignore[arg-type]  # it has one
    bench.now += 8 * DAYS
    bench.hub.release_idle_sockets(3600.0)
    assert bench.hub.session("page", durable=True) is page
    bench.hub.remember_absent(7 * DAYS)
    assert bench.hub.sessions.find("page") is page, "its client has dialled"


def test_the_longest_remembered_are_forgotten_beyond_a_bound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_launcher.keeper.serve.sessions.MAX_REMEMBERED", 3)
    bench.resume()
    bench.talk.output()
    go_away(bench)
    index = bench.hub.journal.index
    for number in range(3):
        page = bench.hub.session(f"page {number}", durable=True)
        bench.hub.plain_of(page).attach(b"n" * 8)
        bench.hub.attached(page, Wire(), new=True)
        go_away(bench)
    assert set(index.sessions) == {"page 0", "page 1", "page 2"}
    assert "3 remembered" in repr(bench.hub.sessions)
    index.check_invariants()
    turned = come_back(bench, seq=1, unacked=1)
    assert turned is not None
    assert decode(turned.bye).reason is ByeReason.EXPIRED  # type: ignore[union-attr]  # a BYE
    assert come_back(bench, seq=0, unacked=1, client=3) is None, "as somebody new it may come"


def test_the_remembered_hold_the_log_only_until_it_is_short_of_room(bench: Bench) -> None:
    bench.resume()
    go_away(bench)
    reader = bench.hub.session("reader", durable=True)
    bench.hub.attached(reader, Wire(), new=True)
    index = bench.hub.journal.index
    index.add_session("reader")
    bench.hub.journal.append(b"x" * 100)
    index.acknowledge("reader", index.head)
    bench.hub.journal.trim()
    before = index.floor
    assert before < index.head, "it may come back and want this"
    bench.hub.relieve_pressure(7 * DAYS)
    bench.hub.journal.trim()
    assert index.floor == index.head
    loss = index.loss_for("s", 0)
    assert loss is not None


def test_a_websocket_that_never_came_about_leaves_no_session(bench: Bench) -> None:
    nameless = bench.hub.session("random", durable=False)
    named = bench.hub.session("page", durable=True)
    bench.hub.left(nameless)
    bench.hub.left(named)
    assert bench.hub.sessions.find("random") is None
    assert "random" not in bench.host.sessions
    assert bench.hub.sessions.find("page") is named
    live = bench.hub.session("live", durable=False)
    wire = Wire()
    bench.hub.plain_of(live).attach(b"n" * 8)
    bench.hub.attached(live, wire, new=True)
    bench.hub.detached(live, wire)
    bench.hub.left(live)
    assert bench.hub.sessions.find("live") is None
