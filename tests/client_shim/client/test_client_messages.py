"""jupyter_client's dictionaries and v1 bytes, and which messages say that a kernel is no more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from jupyter_client.session import Session

from holdfast_client_shim.client.environment import kernel_environment
from holdfast_client_shim.client.messages import (
    death_in,
    from_v1,
    is_word_of_the_shim,
    to_v1,
)
from holdfast_protocol.jupyter import Message, decode_v1, encode_v1


def reply(ename: str, channel: str = "shell") -> bytes:
    content = {"status": "error", "ename": ename, "evalue": "because", "traceback": []}
    header = {"msg_id": "1", "msg_type": "execute_reply"}
    return encode_v1(Message.from_dicts(channel=channel, header=header, content=content))


def status(state: str, **more: Any) -> bytes:
    content = {"execution_state": state, **more}
    header = {"msg_id": "1", "msg_type": "status"}
    return encode_v1(Message.from_dicts(channel="iopub", header=header, content=content))


def test_a_request_of_jupyter_client_goes_there_and_back() -> None:
    session = Session()
    message = session.msg("execute_request", {"code": "print('ä')"}, metadata={"a": [1]})
    message["buffers"] = [b"\x00\x01"]
    sent = decode_v1(to_v1("shell", message))
    assert sent.channel == "shell"
    back = from_v1(to_v1("shell", message))
    assert back["header"]["msg_id"] == back["msg_id"] == message["header"]["msg_id"]
    assert back["msg_type"] == "execute_request"
    assert back["content"] == {"code": "print('ä')"}
    assert back["metadata"] == {"a": [1]}
    assert [bytes(buffer) for buffer in back["buffers"]] == [b"\x00\x01"]


def test_dates_are_dates() -> None:
    header = {"msg_id": "1", "msg_type": "status", "date": "2026-01-02T03:04:05.000006Z"}
    data = encode_v1(Message.from_dicts(channel="iopub", header=header, parent=header))
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert from_v1(data)["header"]["date"] == moment
    assert from_v1(data)["parent_header"]["date"] == moment


def test_a_lone_surrogate_gets_through() -> None:
    message = Session().msg("execute_request", {"code": "'\ud800'"})
    assert from_v1(to_v1("shell", message))["content"]["code"] == "'\ud800'"


@pytest.mark.parametrize("ename", ["HoldfastKernelDied", "HoldfastKernelDead", "HoldfastDead"])
@pytest.mark.parametrize("expected", [True, False])
def test_answers_that_end_a_kernel(ename: str, expected: bool) -> None:
    assert death_in(reply(ename), restart_expected=expected) == "because"


def test_a_restart_is_an_end_unless_it_was_asked_for() -> None:
    assert death_in(reply("HoldfastRestarted"), restart_expected=False) == "because"
    assert death_in(reply("HoldfastRestarted"), restart_expected=True) is None


@pytest.mark.parametrize("ename", ["HoldfastGap", "HoldfastOverload", "ZeroDivisionError"])
def test_other_errors_are_answers(ename: str) -> None:
    assert death_in(reply(ename), restart_expected=False) is None


def test_a_cell_that_prints_such_words_ends_nothing() -> None:
    content = {
        "name": "stdout",
        "text": '{"status": "error", "ename": "HoldfastKernelDied"} "dead"',
    }
    header = {"msg_id": "1", "msg_type": "stream"}
    data = encode_v1(Message.from_dicts(channel="iopub", header=header, content=content))
    assert death_in(data, restart_expected=False) is None
    assert not is_word_of_the_shim(data)


def test_states_that_end_a_kernel() -> None:
    assert death_in(status("dead", reason="no memory"), restart_expected=True) == "no memory"
    assert death_in(status("dead", holdfast_reason="gone"), restart_expected=True) == "gone"
    crashed = death_in(status("restarting", reason="exit 3"), restart_expected=True)
    assert crashed is not None
    assert "exit 3" in crashed
    for state in ("busy", "idle", "starting"):
        assert death_in(status(state), restart_expected=False) is None


def test_the_shims_own_words() -> None:
    assert is_word_of_the_shim(reply("HoldfastError"))
    assert not is_word_of_the_shim(reply("HoldfastGap"))
    assert not is_word_of_the_shim(reply("HoldfastError", channel="iopub"))


def test_variables_of_a_start() -> None:
    env = kernel_environment(
        {"KERNEL_A": "own", "KERNEL_ID": "of a kernel around us", "HOME": "/x", "PROJECT": "p"},
        {"KERNEL_A": "asked", "SECRET": "s"},
        kernel_id="new", allowed="PROJECT, OTHER", user="me", cwd="/here",
    )  # fmt: skip
    assert env == {
        "KERNEL_A": "asked", "KERNEL_ID": "new", "PROJECT": "p", "KERNEL_WORKING_DIR": "/here",
        "KERNEL_USERNAME": "me",
    }  # fmt: skip


def test_what_the_variables_say_comes_first() -> None:
    own = {"KERNEL_WORKING_DIR": "/there", "KERNEL_USERNAME": "she"}
    env = kernel_environment(own, {}, kernel_id="new", allowed="", user="me", cwd="/here")
    assert env == {**own, "KERNEL_ID": "new"}
