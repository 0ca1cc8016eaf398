"""What a notebook is given again, and what the shim tells it by itself."""

from __future__ import annotations

import pytest

from holdfast_client_shim.stream.notices import OpenRequests, dead, lifecycle_state
from holdfast_client_shim.stream.outbox import Outbox
from holdfast_protocol.errors import FrameError
from holdfast_protocol.jupyter import Message, decode_v1, encode_v1


def message(msg_type: str, content: dict[str, object], channel: str = "iopub") -> bytes:
    header = {"msg_id": f"{msg_type}-id", "msg_type": msg_type, "date": "2026-01-01T00:00:00Z"}
    return encode_v1(Message.from_dicts(channel=channel, header=header, content=content))


def text(word: str) -> bytes:
    return message("stream", {"name": "stdout", "text": word})


RESTARTING = message("status", {"execution_state": "restarting"})
INPUT = message("input_request", {"prompt": ""}, channel="stdin")


def replayed(outbox: Outbox) -> list[int]:
    return [item.index for item in outbox.replay()]


def test_proof_consumes_up_to_the_index_only() -> None:
    outbox = Outbox()
    for seq in (5, 6, 9):
        outbox.append(seq, text("x"))
    outbox.written(2)
    assert outbox.prove(3) is None, "what was never written is not proven"
    assert outbox.prove(2) == 6
    assert outbox.prove(2) is None
    assert replayed(outbox) == [3]
    outbox.written(3)
    assert outbox.prove(3) == 9
    assert (len(outbox), outbox.bytes) == (0, 0)


def test_replay_starts_after_a_restarting_that_was_written() -> None:
    outbox = Outbox()
    for seq, entry in enumerate([text("old"), RESTARTING, text("new"), RESTARTING], 1):
        outbox.append(seq, entry)
    outbox.written(3)
    assert replayed(outbox) == [3, 4], "the second restarting was not seen yet"
    outbox.written(4)
    assert replayed(outbox) == []


def test_input_request_comes_again_only_while_it_is_open() -> None:
    outbox = Outbox()
    outbox.append(1, text("a"))
    outbox.append(2, INPUT)
    outbox.written(2)
    assert replayed(outbox) == [1, 2]
    outbox.input_answered()
    assert replayed(outbox) == [1]
    outbox.append(3, INPUT)
    outbox.written(3)
    assert replayed(outbox) == [1, 3]


def test_another_epoch_consumes_nothing_of_this_one() -> None:
    outbox = Outbox()
    outbox.append(700, text("a"))
    outbox.new_epoch()
    outbox.append(1, text("b"))
    outbox.written(2)
    assert outbox.prove(1) == 0
    assert outbox.prove(2) == 1


def test_failures_answer_each_kind_of_request() -> None:
    requests = OpenRequests()
    execute = message("execute_request", {}, channel="shell")
    comm = message("comm_msg", {}, channel="shell")
    requests.sent(execute)
    requests.sent(comm)
    assert len(requests) == 1
    shown = [decode_v1(m) for m in requests.fail_all("it broke")]
    assert [m.msg_type for m in shown] == ["stream", "execute_reply", "status"]
    assert {m.parent_id for m in shown} == {"execute_request-id"}
    assert shown[0].content_dict()["text"] == "holdfast: it broke\n"
    assert shown[1].content_dict()["ename"] == "HoldfastError"
    assert shown[1].channel == "shell"
    assert requests.fail_all("again") == []
    types = [decode_v1(m).msg_type for m in requests.fail(comm, "no room")]
    assert types == ["stream", "status"]
    assert requests.fail(b"nonsense", "no room") == []


def test_a_request_that_has_its_reply_gets_no_second_one() -> None:
    """The reply was there before the acknowledgement, and then another epoch began."""
    requests = OpenRequests()
    request = message("execute_request", {}, channel="shell")
    requests.sent(request)
    requests.received(
        encode_v1(
            Message.from_dicts(
                channel="shell",
                header={"msg_id": "r", "msg_type": "execute_reply"},
                parent={"msg_id": "execute_request-id"},
            )
        )
    )
    assert requests.fail(request, "lost") == []


def test_a_reply_closes_its_request() -> None:
    requests = OpenRequests()
    requests.sent(message("execute_request", {}, channel="shell"))
    requests.received(text("not a reply"))
    assert len(requests) == 1
    reply = Message.from_dicts(
        channel="shell", header={"msg_id": "r", "msg_type": "execute_reply"},
        parent={"msg_id": "execute_request-id"},
    )  # fmt: skip
    requests.received(encode_v1(reply))
    assert len(requests) == 0
    with pytest.raises(FrameError):
        requests.sent(b"nonsense")


def test_lifecycle_is_seen_only_where_it_is() -> None:
    assert lifecycle_state(RESTARTING) == "restarting"
    assert lifecycle_state(dead("out of memory")) == "dead"
    assert lifecycle_state(text("restarting")) is None
    assert (
        lifecycle_state(message("status", {"execution_state": "idle", "x": "restarting"})) is None
    )
    assert lifecycle_state(b'nonsense with "dead"') is None
