"""What a browser tab does: REST and a websocket to a server that speaks Jupyter's kernel API.

It keeps every message with the time it came, so that a test can count, order and time them.
It never reconnects: with the shim, nothing that it is connected to goes away.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import aiohttp

from holdfast_protocol.jupyter import (
    V1_SUBPROTOCOL,
    Message,
    decode_legacy,
    decode_v1,
    encode_legacy,
    encode_v1,
)

#: Longer than any failover of these tests: a test that waits for ever tells nothing.
PATIENCE = 60.0


@dataclass
class Execution:
    """Everything that came for one request."""

    msg_id: str
    messages: list[tuple[float, Message]] = field(default_factory=list)
    reply: Message | None = None
    idle: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        """All of stdout, joined."""
        return "".join(
            content["text"]
            for _, message in self.messages
            if message.msg_type == "stream"
            and (content := message.content_dict())["name"] == "stdout"
        )

    @property
    def stderr(self) -> str:
        return "".join(
            content["text"]
            for _, message in self.messages
            if message.msg_type == "stream"
            and (content := message.content_dict())["name"] == "stderr"
        )

    def of_type(self, msg_type: str) -> list[Message]:
        return [message for _, message in self.messages if message.msg_type == msg_type]

    @property
    def reply_content(self) -> dict[str, Any]:
        assert self.reply is not None, "no reply yet"
        return self.reply.content_dict()

    async def wait_done(self, seconds: float = PATIENCE) -> Execution:
        """Wait for the reply and idle."""
        await self.wait_for(lambda: self.reply is not None and self.idle, seconds)
        return self

    async def wait_for(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def wait_text(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait until stdout contains ``text``."""
        await self.wait_for(lambda: text in self.text, seconds)

    def longest_silence(self, since: float) -> float:
        """Seconds between the last stream message before ``since`` and its successor, or the
        longest silence that ended after ``since``: what the user saw of a failure then."""
        times = [at for at, message in self.messages if message.msg_type == "stream"]
        return max((late - early for early, late in pairwise(times) if late > since), default=0.0)


class Notebook:
    """One kernel and one websocket to it."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, kernel_id: str, session_id: str
    ) -> None:
        self.kernel_id = kernel_id
        self.session_id = session_id
        #: Notified after each message, whoever it is for.
        self.arrived = asyncio.Event()
        self.stray: list[Message] = []
        self.everything: list[tuple[float, Message]] = []
        self.executions: dict[str, Execution] = {}
        self.closed = asyncio.Event()
        self.close_code: int | None = None
        self._http, self._url = http, url
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None

    async def connect(self, *, legacy: bool = False) -> None:
        """Open the websocket; ``legacy`` offers no subprotocol."""
        self._socket = await self._http.ws_connect(
            f"{self._url}/api/kernels/{self.kernel_id}/channels?session_id={self.session_id}",
            protocols=() if legacy else (V1_SUBPROTOCOL,),
            max_msg_size=0,
            autoping=True,
        )
        self.closed.clear()
        self._reader = asyncio.create_task(self._read(self._socket))

    def move(self, url: str) -> None:
        """Use another server from the next ``connect`` on, as a front end with two URLs would."""
        self._url = url

    async def disconnect(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await self._reader

    async def send(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        channel: str = "shell",
        buffers: tuple[bytes, ...] = (),
        parent: dict[str, Any] | None = None,
    ) -> Execution:
        """Send one message; what comes for it is collected in the answer."""
        assert self._socket is not None
        header = {
            "msg_id": uuid.uuid4().hex,
            "username": "test",
            "session": self.session_id,
            "msg_type": msg_type,
            "version": "5.3",
            "date": "2026-01-01T00:00:00.000000Z",
        }
        message = Message.from_dicts(
            channel=channel, header=header, content=content, parent=parent, buffers=buffers
        )
        execution = self.executions[header["msg_id"]] = Execution(header["msg_id"])
        if self._socket.protocol == V1_SUBPROTOCOL:
            await self._socket.send_bytes(encode_v1(message))
        else:
            data = encode_legacy(message)
            await (
                self._socket.send_str(data)
                if isinstance(data, str)
                else self._socket.send_bytes(data)
            )
        return execution

    async def execute(self, code: str, *, allow_stdin: bool = False) -> Execution:
        """Send an execute_request; does not wait."""
        return await self.send(
            "execute_request",
            {
                "code": code,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": allow_stdin,
                "stop_on_error": False,
            },
        )

    async def run(self, code: str, seconds: float = PATIENCE) -> Execution:
        """Execute and wait for reply and idle."""
        return await (await self.execute(code)).wait_done(seconds)

    async def wait_status(self, state: str, seconds: float = PATIENCE) -> None:
        """Wait until a status message says ``state``."""
        async with asyncio.timeout(seconds):
            while state not in self.states():
                self.arrived.clear()
                await self.arrived.wait()

    def states(self) -> list[str]:
        """Every execution_state seen so far, in order."""
        return [
            str(message.content_dict()["execution_state"])
            for _, message in self.everything
            if message.msg_type == "status"
        ]

    async def rest(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """A REST call for this kernel: (status, parsed body or None)."""
        url = f"{self._url}/api/kernels/{self.kernel_id}{path}"
        async with self._http.request(method, url, **options) as response:
            body = await response.text()
            return response.status, json.loads(body) if body else None

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        # aiohttp answers a ping that was read before the connection's end, and cannot any more
        with suppress(ConnectionError):
            async for frame in socket:
                if frame.type is aiohttp.WSMsgType.BINARY and socket.protocol == V1_SUBPROTOCOL:
                    self._take(decode_v1(frame.data))
                elif frame.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    self._take(decode_legacy(frame.data))
        self.close_code = socket.close_code
        self.closed.set()

    def _take(self, message: Message) -> None:
        now = time.monotonic()
        self.everything.append((now, message))
        self.arrived.set()
        execution = self.executions.get(message.parent_id)
        if execution is None:
            self.stray.append(message)
            return
        execution.messages.append((now, message))
        if message.channel in ("shell", "control") and message.msg_type.endswith("_reply"):
            assert execution.reply is None, f"second reply to {execution.msg_id}"
            execution.reply = message
        elif message.msg_type == "status":
            execution.idle = message.content_dict()["execution_state"] == "idle"
        execution.changed.set()


@asynccontextmanager
async def notebook(
    url: str, token: str, *, kernel_id: str | None = None, legacy: bool = False, path: str = ""
) -> AsyncIterator[Notebook]:
    """A kernel (a new one, or ``kernel_id``) with an open websocket. Leaves the kernel running."""
    headers = {"Authorization": f"token {token}"}
    limits = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(headers=headers, timeout=limits) as http:
        if kernel_id is None:
            body: dict[str, Any] = {"name": "python3"}
            if path:
                body["path"] = path
            async with http.post(f"{url}/api/kernels", json=body) as response:
                text = await response.text()
                assert response.status == 201, f"{response.status}: {text}"
                kernel_id = json.loads(text)["id"]
        book = Notebook(http, url, kernel_id, uuid.uuid4().hex)
        await book.connect(legacy=legacy)
        try:
            yield book
        finally:
            await book.disconnect()
