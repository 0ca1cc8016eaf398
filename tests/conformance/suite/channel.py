"""A websocket to a kernel: messages out, messages in, in either framing.

The framing is jupyter_server's own code: the reference, not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)

V1: Final = "v1.kernel.websocket.jupyter.org"
LEGACY: Final = "legacy"
_SECONDS: Final = 40.0

Message = dict[str, Any]


@dataclass
class Execution:
    """What came for one request."""

    msg_id: str
    messages: list[Message] = field(default_factory=list)
    replied: bool = False
    idle: bool = False

    def take(self, message: Message) -> None:
        """One more; must stay cheap, there may be thousands."""
        self.messages.append(message)
        kind = message["header"]["msg_type"]
        self.replied = self.replied or kind.endswith("_reply")
        if kind == "status":
            self.idle = self.idle or message["content"]["execution_state"] == "idle"

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["header"]["msg_type"] == kind]

    @property
    def text(self) -> str:
        return "".join(m["content"]["text"] for m in self.of("stream"))

    @property
    def reply(self) -> Message:
        found = [m for m in self.messages if m["header"]["msg_type"].endswith("_reply")]
        assert len(found) == 1, f"{len(found)} replies"
        return found[0]

    @property
    def complete(self) -> bool:
        return self.replied and self.idle


class Channel:
    """One connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session_id: str) -> None:
        self.socket = socket
        self.session_id = session_id

    async def send(
        self, kind: str, content: Message, *, channel: str = "shell", parent: Message | None = None
    ) -> str:
        """Send one message; its id."""
        header = {
            "msg_id": uuid.uuid4().hex, "msg_type": kind, "session": self.session_id,
            "username": "conformance", "version": "5.3", "date": "2026-01-02T03:04:05.000006Z",
        }  # fmt: skip
        message = {"header": header, "parent_header": parent or {}, "metadata": {}}
        message["content"] = content
        if self.socket.protocol == V1:
            parts = [json.dumps(message[part]).encode() for part in _PARTS]
            await self.socket.send_bytes(serialize_msg_to_ws_v1(parts, channel))
        else:
            await self.socket.send_str(json.dumps({**message, "channel": channel}))
        return header["msg_id"]

    async def receive(self, *, seconds: float = _SECONDS) -> Message:
        """The next message. AssertionError when the connection ends or nothing comes."""
        async with asyncio.timeout(seconds):
            frame = await self.socket.receive()
        if frame.type is aiohttp.WSMsgType.TEXT:
            message: Message = json.loads(frame.data)
        elif frame.type is aiohttp.WSMsgType.BINARY and self.socket.protocol == V1:
            message = _read_v1(frame.data)
        elif frame.type is aiohttp.WSMsgType.BINARY:
            message = deserialize_binary_message(frame.data)
        else:
            raise AssertionError(f"the connection ended: {frame.type.name} {frame.data}")
        return message

    async def gather(
        self,
        msg_id: str,
        *,
        until: Callable[[Execution], bool] | None = None,
    ) -> Execution:
        """Everything for ``msg_id``, up to its reply and idle, or ``until`` says so."""
        found = Execution(msg_id)
        limit = time.monotonic() + _SECONDS
        while not (found.complete if until is None else until(found)):
            message = await self.receive(seconds=limit - time.monotonic())
            if message["parent_header"].get("msg_id") == msg_id:
                found.take(message)
        return found

    async def gather_all(self, msg_id: str, *, quiet: float = 15.0) -> Execution:
        """Everything for ``msg_id``, up to its reply and idle or ``quiet`` seconds of silence."""
        found = Execution(msg_id)
        with contextlib.suppress(TimeoutError):
            while not found.complete:
                message = await self.receive(seconds=quiet)
                if message["parent_header"].get("msg_id") == msg_id:
                    found.take(message)
        return found

    async def execute(self, code: str, *, stdin: bool = False) -> Execution:
        """Run a cell to its end."""
        return await self.gather(await self.begin(code, stdin=stdin))

    async def begin(self, code: str, *, stdin: bool = False) -> str:
        """Send a cell; its id."""
        content = {
            "code": code, "silent": False, "store_history": False,
            "user_expressions": {}, "allow_stdin": stdin, "stop_on_error": True,
        }  # fmt: skip
        return await self.send("execute_request", content)

    async def closed(self, *, seconds: float = 20.0) -> int | None:
        """Read to the end; the close code."""
        async with asyncio.timeout(seconds):
            # A server may have left before our own close frame can be written: closed it is.
            with contextlib.suppress(aiohttp.ClientConnectionResetError):
                async for _ in self.socket:
                    pass
        return self.socket.close_code


_PARTS: Final = ("header", "parent_header", "metadata", "content")


def _read_v1(frame: bytes) -> Message:
    channel, parts = deserialize_msg_from_ws_v1(frame)
    message: Message = {name: json.loads(parts[n]) for n, name in enumerate(_PARTS)}
    return {**message, "channel": channel, "buffers": [bytes(part) for part in parts[4:]]}
