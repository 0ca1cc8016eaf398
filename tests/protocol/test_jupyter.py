"""Jupyter's two framings, against values and against jupyter_server's own code."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)

from holdfast_protocol.errors import FrameError
from holdfast_protocol.jupyter import (
    Message,
    channel_of_v1,
    decode_legacy,
    decode_v1,
    encode_legacy,
    encode_v1,
)

objects = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=4)
messages = st.builds(
    lambda channel, header, parent, content, buffers: Message.from_dicts(
        channel=channel,
        header={**header, "msg_id": "m1", "msg_type": "t"},
        parent=parent,
        content=content,
        buffers=tuple(buffers),
    ),
    st.sampled_from(["shell", "iopub", "control", "stdin"]),
    objects,
    objects,
    objects,
    st.lists(st.binary(max_size=20), max_size=3),
)


@given(messages)
def test_v1_survives_and_agrees_with_jupyter_server(message: Message) -> None:
    data = encode_v1(message)
    assert decode_v1(data) == message
    assert channel_of_v1(data) == message.channel
    channel, parts = deserialize_msg_from_ws_v1(data)
    assert channel == message.channel
    assert parts[:4] == [message.header, message.parent, message.metadata, message.content]
    assert tuple(parts[4:]) == message.buffers
    theirs = serialize_msg_to_ws_v1(parts, channel)
    assert theirs == data


@given(messages)
def test_legacy_survives_and_agrees_with_jupyter_server(message: Message) -> None:
    data = encode_legacy(message)
    back = decode_legacy(data)
    assert (back.channel, back.header_dict, back.parent_dict) == (
        message.channel,
        message.header_dict,
        message.parent_dict,
    )
    assert back.content_dict() == message.content_dict()
    assert back.buffers == message.buffers
    if message.buffers:
        assert isinstance(data, bytes)
        theirs = deserialize_binary_message(data)
        assert theirs["header"] == message.header_dict
        assert tuple(bytes(buffer) for buffer in theirs["buffers"]) == message.buffers
    else:
        assert json.loads(data)["content"] == message.content_dict()


def test_reads_what_jupyter_server_writes_with_buffers() -> None:
    data = serialize_binary_message(
        {"channel": "shell", "header": {"msg_id": "x", "date": None}, "content": {"a": 1},
         "buffers": [b"one", b""]}
    )  # fmt: skip
    message = decode_legacy(data)
    assert (message.msg_id, message.buffers) == ("x", (b"one", b""))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_frame_error(data: bytes) -> None:
    for parse in (decode_v1, decode_legacy, channel_of_v1):
        with contextlib.suppress(FrameError):
            parse(data)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"header": 1}', '{"header": {}, "channel": "x"}']
)
def test_legacy_text_that_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(FrameError):
        decode_legacy(text)
