"""Which requests are open, which a gap touched, and what an ending incarnation left."""

from __future__ import annotations

from holdfast_launcher.keeper.serve.requests import Request, RequestBook
from holdfast_protocol.jupyter import Message
from holdfast_protocol.log import Loss


def message(msg_id: str, kind: str = "execute_request", channel: str = "shell") -> Message:
    return Message.from_dicts(channel=channel, header={"msg_id": msg_id, "msg_type": kind})


def given(book: RequestBook, msg_id: str, *, session: str = "s", head: int = 0) -> Request:
    request = book.accepted(session, message(msg_id), head=head)
    assert request is not None
    request.given = True
    return request


def ids(requests: list[Request]) -> list[str]:
    return [request.msg_id for request in requests]


def test_a_request_is_open_until_its_session_has_reply_and_idle() -> None:
    book = RequestBook()
    given(book, "a")
    book.replied("a", 5)
    book.acknowledged("s", 5)
    assert book.awaited("s"), "idle is still to come"
    book.idled("a", 6)
    book.acknowledged("s", 5)
    assert not book.awaited("s"), "the kernel has said all"
    assert book.find("a") is not None, "idle has not arrived"
    book.acknowledged("s", 6)
    assert book.find("a") is None


def test_an_acknowledgement_of_another_session_closes_nothing() -> None:
    book = RequestBook()
    given(book, "a")
    book.replied("a", 1)
    book.idled("a", 2)
    book.acknowledged("t", 2)
    assert book.find("a") is not None


def test_what_an_incarnation_left_is_what_was_given_and_not_ended() -> None:
    book = RequestBook()
    given(book, "answered")
    book.replied("answered", 1)
    book.idled("answered", 2)
    given(book, "idle missing")
    book.replied("idle missing", 3)
    given(book, "running")
    book.accepted("s", message("held"), head=0)
    assert ids(book.end_incarnation()) == ["idle missing", "running"]


def test_a_comm_message_needs_no_reply() -> None:
    book = RequestBook()
    request = book.accepted("s", message("c", "comm_msg"), head=0)
    assert request is not None
    request.given = True
    book.idled("c", 4)
    assert request.done_seq == 4
    assert book.end_incarnation() == []


def test_a_gap_touches_what_was_open_while_it_was_logged() -> None:
    book = RequestBook()
    given(book, "before", head=0)
    book.replied("before", 1)
    book.idled("before", 2)
    given(book, "ended inside", head=2)
    book.replied("ended inside", 12)
    book.idled("ended inside", 13)
    given(book, "reply inside", head=2)
    book.replied("reply inside", 14)
    given(book, "still running", head=2)
    given(book, "after", head=20)
    given(book, "another's", session="t", head=2)
    touched = book.touched("s", Loss(10, 20, 9, "log full"))
    assert [(t.request.msg_id, t.reply_lost, t.idle_lost) for t in touched] == [
        ("ended inside", True, True),
        ("reply inside", True, False),
        ("still running", False, False),
    ]


def test_an_input_is_open_until_it_is_answered_or_its_request_ends() -> None:
    book = RequestBook()
    given(book, "a")
    book.input_requested("s", "a", 7)
    assert book.input_open(7)
    assert book.accepted("s", message("i", "input_reply", "stdin"), head=8) is None
    assert not book.input_open(7)
    book.input_requested("s", "a", 9)
    book.idled("a", 10)
    assert not book.input_open(9), "it was interrupted"


def test_an_interrupt_knows_whether_something_is_still_to_begin() -> None:
    book = RequestBook()
    assert not book.waiting_to_start()
    given(book, "a")
    assert book.waiting_to_start()
    book.started("a")
    assert book.anything_started()
    assert not book.waiting_to_start()
    book.replied("a", 1)
    assert not book.anything_started()


def test_a_forgotten_session_leaves_nothing() -> None:
    book = RequestBook()
    given(book, "a")
    book.input_requested("s", "a", 1)
    book.forget_session("s")
    assert not book.awaited("s")
    assert len(book) == 0
