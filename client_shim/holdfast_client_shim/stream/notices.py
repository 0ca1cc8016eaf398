"""What the shim itself says to a notebook, and which requests still wait for an answer.

Pure; messages are v1 bytes. The keeper tells the cells about losses that it knows of; only what
no keeper can know is said here: that a new keeper has taken over, that a message could not be
taken, that the kernel is gone.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Container, Iterable
from typing import Any

from holdfast_protocol.errors import FrameError
from holdfast_protocol.jupyter import Message, channel_of_v1, decode_v1, encode_v1

from .record import RequestRecord, StreamRecord, never_sent

_KEPT = 10_000
_ANSWERED = ("shell", "control")


def _message(channel: str, msg_type: str, parent: dict[str, Any], content: dict[str, Any]) -> bytes:
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "session": "holdfast",
        "username": "holdfast",
        "version": "5.3",
    }
    if "date" in parent:
        # Ours is a word on that request: its own date keeps this module without a clock.
        header["date"] = parent["date"]
    return encode_v1(
        Message.from_dicts(channel=channel, header=header, parent=parent, content=content)
    )


def failure(channel: str, header: dict[str, Any], reason: str) -> list[bytes]:
    """Tell one request that it failed: text in its cell, an error reply, and idle."""
    text = f"holdfast: {reason}\n"
    messages = [_message("iopub", "stream", header, {"name": "stderr", "text": text})]
    msg_type = str(header.get("msg_type", ""))
    if channel in _ANSWERED and msg_type.endswith("_request"):
        content = {"status": "error", "ename": "HoldfastError", "evalue": reason, "traceback": []}
        reply = msg_type.removesuffix("_request") + "_reply"
        messages.append(_message(channel, reply, header, content))
    messages.append(_message("iopub", "status", header, {"execution_state": "idle"}))
    return messages


def failures(requests: Iterable[RequestRecord], reason: str) -> list[bytes]:
    """The same for several requests that another process sent."""
    return [
        message
        for request in requests
        for message in failure(request.channel, dict(request.header), reason)
    ]


def dead(reason: str) -> bytes:
    """The status that makes every Jupyter client show a dead kernel, with the reason."""
    content = {"execution_state": "dead", "holdfast_reason": reason}
    return _message("iopub", "status", {}, content)


def lifecycle_state(message: bytes) -> str | None:
    """``restarting`` or ``dead`` when the message says so of the kernel, else None."""
    if len(message) > 8192 or not (b"restarting" in message or b'"dead"' in message):
        return None
    try:
        parsed = decode_v1(message)
        if parsed.channel != "iopub" or parsed.msg_type != "status":
            return None
        state = parsed.content_dict().get("execution_state")
    except FrameError:
        return None
    return state if state in ("restarting", "dead") else None


class OpenRequests:
    """Requests of one client that have no reply yet, oldest first (the last 10,000)."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[str, dict[str, Any]]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<OpenRequests {list(self._open)[:5]} of {len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    def sent(self, message: bytes) -> None:
        """Note a message on its way to the kernel. Raises FrameError when it is malformed."""
        channel = channel_of_v1(message)
        if channel not in _ANSWERED:
            return
        header = decode_v1(message).header_dict
        if str(header.get("msg_type", "")).endswith("_request"):
            self._open[str(header.get("msg_id", ""))] = (channel, header)
            if len(self._open) > _KEPT:
                self._open.popitem(last=False)

    def received(self, message: bytes) -> bool:
        """Note a message from the kernel: a reply closes its request. True when one did."""
        if self._open and channel_of_v1(message) in _ANSWERED:
            return self._open.pop(decode_v1(message).parent_id, None) is not None
        return False

    def entries(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(msg_id, channel, header) of each, oldest first."""
        return [(msg_id, channel, header) for msg_id, (channel, header) in self._open.items()]

    def warn_all(self, text: str, *, but: Container[str]) -> list[bytes]:
        """A line of stderr for everything open, which stays open; ``but``: not for these ids."""
        content = {"name": "stderr", "text": f"holdfast: {text}\n"}
        return [
            _message("iopub", "stream", header, content)
            for msg_id, (_, header) in self._open.items()
            if msg_id not in but
        ]

    def take_over(self, former: StreamRecord, accepted: int | None) -> list[bytes]:
        """Requests that a process before this one sent are open here; answers for those that it
        had not sent yet, and that are lost with it. ``accepted``: as for ``never_sent``."""
        lost = never_sent(former, accepted)
        for request in former.requests:
            if request not in lost:
                header = dict(request.header)
                self._open.setdefault(str(header.get("msg_id", "")), (request.channel, header))
        return failures(
            lost, "not sent: the notebook server was restarted before it could; run it again"
        )

    def fail(self, message: bytes, reason: str) -> list[bytes]:
        """Answers for one message that was refused or lost.

        Malformed ones get none, and neither does a request that has its reply: the reply may be
        faster than the acknowledgement of the request.
        """
        try:
            parsed = decode_v1(message)
            answered = self._open.pop(parsed.msg_id, None) is None
            if answered and parsed.channel in _ANSWERED and parsed.msg_type.endswith("_request"):
                return []
            return failure(parsed.channel, parsed.header_dict, reason)
        except FrameError:
            return []

    def fail_all(self, reason: str) -> list[bytes]:
        """Answers for everything open, which is then closed."""
        messages: list[bytes] = []
        for channel, header in self._open.values():
            messages += failure(channel, header, reason)
        self._open.clear()
        return messages
