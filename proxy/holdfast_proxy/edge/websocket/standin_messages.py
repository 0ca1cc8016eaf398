"""The few Jupyter messages that a proxy writes itself, while no keeper can speak. Pure.

Formats after "Messaging in Jupyter" 5.3: ``stream``, ``status``, ``error`` and ``execute_reply``.
Must not know connections or why a kernel waits.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from holdfast_protocol.errors import FrameError
from holdfast_protocol.jupyter import (
    V1_SUBPROTOCOL,
    Message,
    decode_legacy,
    decode_v1,
    encode_legacy,
    encode_v1,
)

_PROTOCOL_VERSION: Final = "5.3"


def read_request(subprotocol: str | None, data: str | bytes) -> Message | None:
    """A client's execute_request; None for any other message, and for what is no message.

    Only cells are answered: JupyterLab shows ``stream`` output whose parent is a cell, and
    nothing else. What is malformed is the keeper's to refuse, when it gets it.
    """
    try:
        if subprotocol == V1_SUBPROTOCOL:
            if isinstance(data, str):
                return None
            message = decode_v1(data)
        else:
            message = decode_legacy(data)
        return message if message.msg_type == "execute_request" else None
    except FrameError:
        return None


def encode(subprotocol: str | None, message: Message) -> str | bytes:
    """The message in the framing that the client chose."""
    return encode_v1(message) if subprotocol == V1_SUBPROTOCOL else encode_legacy(message)


@dataclass(frozen=True, slots=True)
class Writer:
    """Makes messages of one session. ``now`` is the time that goes into their headers."""

    now: datetime
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    def stream(self, text: str, parent: Message | None) -> Message:
        """Text on stderr, in the cell of ``parent`` if there is one."""
        return self._message("iopub", "stream", {"name": "stderr", "text": text}, parent)

    def status(self, state: str, parent: Message | None = None) -> Message:
        return self._message("iopub", "status", {"execution_state": state}, parent)

    def failure(self, request: Message, ename: str, reason: str) -> list[Message]:
        """All that a cell needs to end with an error: text, reply and idle."""
        content = {"ename": ename, "evalue": reason, "traceback": [f"{ename}: {reason}"]}
        reply = {"status": "error", "execution_count": None, **content}
        return [
            self._message("iopub", "error", content, request),
            self._message("shell", "execute_reply", reply, request),
            self.status("idle", request),
        ]

    def _message(
        self, channel: str, msg_type: str, content: dict[str, Any], parent: Message | None
    ) -> Message:
        header = {
            "msg_id": uuid.uuid4().hex,
            "session": self.session,
            "username": "holdfast",
            "date": self.now.isoformat(),
            "msg_type": msg_type,
            "version": _PROTOCOL_VERSION,
        }
        parent_header = None if parent is None else parent.header_dict
        return Message.from_dicts(
            channel=channel, header=header, parent=parent_header, content=content
        )
