"""The Jupyter messages that a keeper writes itself: lifecycle, gaps and answers to lost requests.

They are in the words of the Jupyter messaging protocol, so every client shows them. Pure: ids
and times are passed in. Everything else that a client gets is the kernel's own, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holdfast_protocol.errors import LocalError, SendBufferFull
from holdfast_protocol.jupyter import Message

from .requests import Request

_VERSION = "5.3"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request gets no answer from its kernel, as a client shows it."""

    name: str
    text: str


def restarted(reason: str) -> Failure:
    text = f"the kernel restarted before it answered ({reason}); this was not run again"
    return Failure("HoldfastRestarted", text)


def died(reason: str) -> Failure:
    return Failure("HoldfastKernelDied", f"the kernel died before it answered: {reason}")


def is_dead(reason: str) -> Failure:
    return Failure("HoldfastKernelDead", f"the kernel is dead ({reason}); restart it first")


def interrupted() -> Failure:
    return Failure("KeyboardInterrupt", "the kernel was interrupted and gave no reply")


def overloaded(held: int) -> Failure:
    text = f"{held} bytes already wait for the kernel; this message was refused"
    return Failure("HoldfastOverload", text)


def not_given(error: LocalError) -> Failure:
    name = "HoldfastOverload" if isinstance(error, SendBufferFull) else "HoldfastNotSent"
    return Failure(name, f"this message was not given to the kernel: {error}")


def gap(count: int, reason: str) -> Failure:
    return Failure("HoldfastGap", f"{count} messages lost: {reason}; the answer was among them")


@dataclass(frozen=True, slots=True)
class Notices:
    """Writes messages in the kernel's own session. ``new_id`` and ``now`` are injected."""

    new_id: Callable[[], str]
    now: Callable[[], str]

    def status(self, kernel_session: str, state: str, reason: str | None = None) -> Message:
        """A synthetic iopub ``status`` without a parent, for everybody."""
        content = {"execution_state": state}
        if reason is not None:
            content["reason"] = reason
        return self._message("iopub", "status", kernel_session, {}, content)

    def idle(self, kernel_session: str, request: Request) -> Message:
        parent = _header(request)
        return self._message("iopub", "status", kernel_session, parent, {"execution_state": "idle"})

    def stderr(self, kernel_session: str, request: Request, text: str) -> Message:
        """A line in the cell of ``request``."""
        content = {"name": "stderr", "text": f"holdfast: {text}\n"}
        return self._message("iopub", "stream", kernel_session, _header(request), content)

    def lost(self, kernel_session: str, request: Request, count: int, reason: str) -> Message:
        return self.stderr(kernel_session, request, f"{count} messages lost: {reason}")

    def error_reply(self, kernel_session: str, request: Request, failure: Failure) -> Message:
        """The reply that the kernel never gave, saying so."""
        content: dict[str, Any] = {
            "status": "error",
            "ename": failure.name,
            "evalue": failure.text,
            "traceback": [],
        }
        if request.msg_type == "execute_request":
            count = request.execution_count
            content |= {"execution_count": count, "user_expressions": {}, "payload": []}
        kind = request.msg_type.removesuffix("_request") + "_reply"
        return self._message(request.channel, kind, kernel_session, _header(request), content)

    def error_output(self, kernel_session: str, request: Request, failure: Failure) -> Message:
        """The error as a cell shows it: clients do not display replies."""
        content = {
            "ename": failure.name,
            "evalue": failure.text,
            "traceback": [f"{failure.name}: {failure.text}"],
        }
        return self._message("iopub", "error", kernel_session, _header(request), content)

    def _message(
        self,
        channel: str,
        msg_type: str,
        kernel_session: str,
        parent: dict[str, Any],
        content: dict[str, Any],
    ) -> Message:
        header = {
            "msg_id": self.new_id(),
            "session": kernel_session,
            "username": "holdfast",
            "date": self.now(),
            "msg_type": msg_type,
            "version": _VERSION,
        }
        return Message.from_dicts(channel=channel, header=header, parent=parent, content=content)


def _header(request: Request) -> dict[str, Any]:
    value = json.loads(request.header)
    return value if isinstance(value, dict) else {}
