"""jupyter_client's message dictionaries and the v1 bytes that streams carry, each way. Pure.

Sources: "Messaging in Jupyter" (the parts of a message), and ``Session.deserialize`` for what a
client expects of a dictionary: dates parsed, ``msg_id`` and ``msg_type`` beside the header.
"""

from __future__ import annotations

import json
from typing import Any, Final

from jupyter_client.jsonutil import extract_dates, json_default

from holdfast_protocol.errors import FrameError
from holdfast_protocol.jupyter import Message, channel_of_v1, decode_v1, encode_v1

#: An answer that says that the kernel which was asked is no more (the keeper's words, the
#: proxy's for a kernel without a keeper), and one of the shim's own, which may say so.
_ENDS: Final = frozenset({"HoldfastKernelDied", "HoldfastKernelDead", "HoldfastDead"})
_RESTARTED: Final = "HoldfastRestarted"
_OF_THE_SHIM: Final = "HoldfastError"
#: No answer of that kind is longer.
_SHORT: Final = 64 * 1024


def to_v1(channel: str, message: dict[str, Any]) -> bytes:
    """The bytes of a message for the kernel. Raises TypeError when it cannot be JSON."""
    return encode_v1(
        Message(
            channel,
            _dump(message["header"]),
            _dump(message.get("parent_header") or {}),
            _dump(message.get("metadata") or {}),
            _dump(message.get("content") or {}),
            tuple(message.get("buffers") or ()),
        )
    )


def from_v1(data: bytes) -> dict[str, Any]:
    """The dictionary of a message from the kernel. Raises FrameError."""
    message = decode_v1(data)
    header = extract_dates(message.header_dict)
    return {
        "header": header,
        "msg_id": header.get("msg_id", ""),
        "msg_type": header.get("msg_type", ""),
        "parent_header": extract_dates(message.parent_dict),
        "metadata": json.loads(message.metadata or b"{}"),
        "content": message.content_dict(),
        "buffers": [memoryview(buffer) for buffer in message.buffers],
    }


def death_in(data: bytes, *, restart_expected: bool) -> str | None:
    """Why the kernel is no more, if this message says so; otherwise None.

    A kernel that crashed and was started again has lost its variables, so for a notebook that is
    in the middle of it, it is dead as well. ``restart_expected``: it was asked to restart.
    """
    if len(data) > _SHORT:
        return None
    if channel_of_v1(data) == "iopub":
        return _state_in(data)
    name, text = _error_in(data)
    if name in _ENDS or (name == _RESTARTED and not restart_expected):
        return text
    return None


def is_word_of_the_shim(data: bytes) -> bool:
    """Whether it is an answer that the shim wrote because none will come."""
    return len(data) <= _SHORT and _error_in(data)[0] == _OF_THE_SHIM


def _state_in(data: bytes) -> str | None:
    if b'"dead"' not in data and b'"restarting"' not in data:
        return None
    try:
        message = decode_v1(data)
        if message.msg_type != "status":
            return None
        content = message.content_dict()
    except FrameError:
        return None
    reason = content.get("reason") or content.get("holdfast_reason")
    if content.get("execution_state") == "dead":
        return str(reason or "the gateway says so")
    if content.get("execution_state") == "restarting":
        return f"it ended ({reason or 'unexpectedly'}) and was started again without its variables"
    return None


def _error_in(data: bytes) -> tuple[str, str]:
    """Name and text of an error reply of Holdfast's; empty for anything else."""
    if b'"Holdfast' not in data or channel_of_v1(data) == "iopub":
        return "", ""
    try:
        content = decode_v1(data).content_dict()
    except FrameError:
        return "", ""
    if content.get("status") != "error":
        return "", ""
    return str(content.get("ename", "")), str(content.get("evalue", ""))


def _dump(value: Any) -> bytes:
    text = json.dumps(value, default=json_default, ensure_ascii=False, separators=(",", ":"))
    # a lone surrogate, which a notebook's source may hold, becomes JSON's own escape of it
    return text.encode("utf-8", "backslashreplace")
