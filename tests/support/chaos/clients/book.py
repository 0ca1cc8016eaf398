"""One session: cells that were sent, and what came for them, all of it recorded.

It knows messages and must not know how the websocket is kept up; that is what the shim's and the
plain client differ in.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from holdfast_protocol.jupyter import V1_SUBPROTOCOL, Message, decode_v1, encode_v1
from support.chaos.cells import Cell
from support.chaos.history import Opened, Received, Recorder, Sent

_REPLY = "_reply"


@dataclass
class Pending:
    """A cell without its end."""

    number: int
    sent: float
    replied: bool = False
    idle: bool = False
    status: str = ""


@dataclass
class Book:
    """A session with the kernel ``kernel``. ``client``: ``shim`` or ``plain``."""

    recorder: Recorder
    client: str
    kernel: str
    session: str = field(default_factory=lambda: uuid.uuid4().hex)
    pending: dict[str, Pending] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: The execution state that the kernel announced to everybody last.
    state: str = ""
    cells: int = 0
    #: msg_id of a question that proves where the kernel is, and whether it was answered.
    probe: str = ""
    _seen: set[str] = field(default_factory=set)

    def opened(self, proxy: int = -1) -> None:
        now = self.recorder.now()
        self.recorder.write(
            Opened(
                at=now, session=self.session, client=self.client, kernel=self.kernel, proxy=proxy
            )
        )

    async def send_cell(
        self, socket: aiohttp.ClientWebSocketResponse, cell: Cell, code: str
    ) -> None:
        """Give one cell to the websocket. Raises what a closed one raises."""
        content = {
            "code": code,
            "silent": False,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message = self._message("execute_request", content)
        now = self.recorder.now()
        # Noted first: one that was lost on the way was sent, one that is not noted never ran.
        self.pending[message.msg_id] = Pending(cell.number, now)
        self.recorder.write(
            Sent(
                at=now,
                session=self.session,
                kernel=self.kernel,
                cell=cell.number,
                msg_id=message.msg_id,
                lines=cell.lines,
                width=cell.width,
            )
        )
        await socket.send_bytes(encode_v1(message))

    async def send_probe(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Ask something that the kernel answers after all that it was given before."""
        message = self._message("kernel_info_request", {})
        self.probe = message.msg_id
        await socket.send_bytes(encode_v1(message))

    def next_cell(self, *, lines: int, width: int, interval: float) -> Cell:
        self.cells += 1
        return Cell(
            session=self.session, number=self.cells, lines=lines, width=width, interval=interval
        )

    def take(self, data: bytes) -> None:
        """One frame that came."""
        message = decode_v1(data)
        content = message.content_dict()
        self.recorder.write(self._received(message, content))
        if message.msg_id in self._seen:
            return
        self._seen.add(message.msg_id)
        if message.msg_type == "status" and not message.parent_id:
            self.state = str(content.get("execution_state", ""))
        if message.parent_id == self.probe and message.msg_type.endswith(_REPLY):
            self.probe = ""
        pending = self.pending.get(message.parent_id)
        if pending is not None:
            self._advance(message, content, pending)
        self.changed.set()

    def _advance(self, message: Message, content: dict[str, Any], pending: Pending) -> None:
        if message.msg_type == "execute_reply":
            pending.replied, pending.status = True, str(content.get("status", ""))
        elif message.msg_type == "status" and content.get("execution_state") == "idle":
            pending.idle = True
        if pending.replied and pending.idle:
            del self.pending[message.parent_id]

    def _received(self, message: Message, content: dict[str, Any]) -> Received:
        kind = message.msg_type
        return Received(
            at=self.recorder.now(),
            session=self.session,
            msg_id=message.msg_id,
            parent=message.parent_id,
            kind=kind,
            text=str(content.get("text", "")) if kind == "stream" else "",
            stream=str(content.get("name", "")) if kind == "stream" else "",
            state=str(content.get("execution_state", "")) if kind == "status" else "",
            status=str(content.get("status", "")) if kind.endswith(_REPLY) else "",
            ename=str(content.get("ename", "")),
        )

    def _message(self, msg_type: str, content: dict[str, Any]) -> Message:
        header = {
            "msg_id": uuid.uuid4().hex,
            "username": "chaos",
            "session": self.session,
            "msg_type": msg_type,
            "version": "5.3",
            "date": "2026-01-01T00:00:00.000000Z",
        }
        return Message.from_dicts(channel="shell", header=header, content=content)


async def open_socket(
    http: aiohttp.ClientSession, url: str, book: Book, **options: Any
) -> aiohttp.ClientWebSocketResponse:
    """The session's websocket at a server. Raises aiohttp's errors."""
    return await http.ws_connect(
        f"{url}/api/kernels/{book.kernel}/channels?session_id={book.session}",
        protocols=(V1_SUBPROTOCOL,),
        max_msg_size=0,
        **options,
    )
