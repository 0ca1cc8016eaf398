"""What a notebook server must know again after a restart, and how it is written down. Pure.

JSON, because people will look at it. It is believed only as a whole: a file that lacks a field
or has a wrong one is ``Unreadable``, so that half of it is never taken for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from ..stream.record import RequestRecord, StreamRecord

VERSION: Final = 1
T = TypeVar("T")


class Unreadable(Exception):
    """The text is no state of ours; the message says why."""


@dataclass(frozen=True, slots=True)
class KernelRow:
    """A kernel that this server started. ``model``: Jupyter's, as last seen; None while its
    start was not answered yet."""

    kernel_id: str
    name: str
    model: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A row of ``/api/sessions``: which document uses which kernel."""

    session_id: str
    path: str | None
    name: str | None
    type: str | None
    kernel_id: str


@dataclass(frozen=True, slots=True)
class ServerState:
    """``root_dir``: the server's, absolute. ``gateways``: names of those that it knew.
    ``holdfast``: whether they have shown themselves to be Holdfast."""

    root_dir: str
    gateways: tuple[str, ...] = ()
    holdfast: bool = False
    kernels: tuple[KernelRow, ...] = ()
    sessions: tuple[SessionRow, ...] = ()
    streams: tuple[StreamRecord, ...] = field(default=())


def encode(state: ServerState) -> str:
    """The state as text."""
    document = {
        "holdfast_notebook_server": VERSION,
        "root_dir": state.root_dir,
        "gateways": list(state.gateways),
        "holdfast": state.holdfast,
        "kernels": [
            {"id": row.kernel_id, "name": row.name, "model": row.model} for row in state.kernels
        ],
        "sessions": [
            {
                "id": row.session_id, "path": row.path, "name": row.name, "type": row.type,
                "kernel_id": row.kernel_id,
            }
            for row in state.sessions
        ],
        "streams": [_stream_document(record) for record in state.streams],
    }  # fmt: skip
    return json.dumps(document, indent=1) + "\n"


def decode(text: str) -> ServerState:
    """Raises Unreadable."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise Unreadable(f"it is not JSON: {error}") from None
    fields = _Fields(document, "the file")
    version = fields.take("holdfast_notebook_server", int)
    if version != VERSION:
        raise Unreadable(f"it has version {version}, and version {VERSION} is known here")
    return ServerState(
        root_dir=fields.take("root_dir", str),
        gateways=tuple(fields.each("gateways", _text)),
        holdfast=fields.take("holdfast", bool),
        kernels=tuple(fields.each("kernels", _kernel)),
        sessions=tuple(fields.each("sessions", _session)),
        streams=tuple(fields.each("streams", _stream)),
    )


class _Fields:
    """A JSON object's fields, taken with their types."""

    def __init__(self, document: object, what: str) -> None:
        if not isinstance(document, dict):
            raise Unreadable(f"{what} is no object")
        self._document: dict[str, Any] = document
        self._what = what

    def __repr__(self) -> str:
        return f"<_Fields of {self._what}>"

    def take(self, name: str, kind: type[T]) -> T:
        value = self._document.get(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Unreadable(f"{self._what}: {name!r} is not {kind.__name__}")
        return value

    def take_or_none(self, name: str, kind: type[T]) -> T | None:
        return None if self._document.get(name, "") is None else self.take(name, kind)

    def each(self, name: str, parse: Callable[[object], T]) -> list[T]:
        return [parse(item) for item in self.take(name, list)]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Unreadable(f"{value!r} is no text")
    return value


def _kernel(value: object) -> KernelRow:
    fields = _Fields(value, "a kernel")
    model = fields.take_or_none("model", dict)
    if model is not None and not {"id", "name", "last_activity", "execution_state"} <= set(model):
        raise Unreadable("a kernel's model lacks a field")
    return KernelRow(fields.take("id", str), fields.take("name", str), model)


def _session(value: object) -> SessionRow:
    fields = _Fields(value, "a session")
    return SessionRow(
        session_id=fields.take("id", str),
        path=fields.take_or_none("path", str),
        name=fields.take_or_none("name", str),
        type=fields.take_or_none("type", str),
        kernel_id=fields.take("kernel_id", str),
    )


def _stream_document(record: StreamRecord) -> dict[str, Any]:
    return {
        "kernel_id": record.kernel_id,
        "session_id": record.session_id,
        "epoch": record.epoch.hex(),
        "position": record.position,
        "requests": [
            {"channel": request.channel, "header": request.header, "seq": request.seq}
            for request in record.requests
        ],
    }


def _stream(value: object) -> StreamRecord:
    fields = _Fields(value, "a stream")
    try:
        epoch = bytes.fromhex(fields.take("epoch", str))
    except ValueError:
        raise Unreadable("a stream's epoch is not hexadecimal") from None
    if len(epoch) != 16 or fields.take("position", int) < 0:
        raise Unreadable("a stream's place is malformed")
    return StreamRecord(
        kernel_id=fields.take("kernel_id", str),
        session_id=fields.take("session_id", str),
        epoch=epoch,
        position=fields.take("position", int),
        requests=tuple(fields.each("requests", _request)),
    )


def _request(value: object) -> RequestRecord:
    fields = _Fields(value, "a request")
    return RequestRecord(
        channel=fields.take("channel", str),
        header=fields.take("header", dict),
        seq=fields.take_or_none("seq", int),
    )
