"""What a browser tab does with a notebook: contents, a session, a websocket, execute requests.

It comes back when its websocket closes, as JupyterLab does, and asks the server whether the
kernel is still there. It judges nothing: records take the messages. Rejected: nbclient; it would
bring Jupyter into the package of the proxies, and it is no browser.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import aiohttp

from holdfast_protocol.errors import FrameError
from holdfast_protocol.jupyter import (
    V1_SUBPROTOCOL,
    Message,
    decode_legacy,
    decode_v1,
    encode_legacy,
    encode_v1,
)

from .record import CellRecord

#: Seconds for one REST call; a start behind a gateway that is just coming back takes long.
_REST = 60.0
#: Seconds between two looks at whether a silent kernel is still there, and until it is given up.
_LOOK, PATIENCE = 1.0, 30.0
#: JupyterLab's own pauses before it reconnects are longer; this only must not spin.
_RECONNECT = 0.2
_HANDSHAKE = 10.0


class BrowserError(Exception):
    """The notebook server refused or did not answer; the message says what and how."""


class KernelLost(Exception):
    """The kernel of a cell is gone, or silent for PATIENCE; the message says which."""


class Browser:
    """REST calls to one notebook server."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self.http, self.url = http, url
        self.headers = {"Authorization": f"token {token}"}

    def __repr__(self) -> str:
        return f"<Browser {self.url}>"

    async def save(self, path: str, document: dict[str, Any]) -> None:
        """Write a notebook by the contents API. Raises BrowserError."""
        body = {"type": "notebook", "format": "json", "content": document}
        await self._call("PUT", f"/api/contents/{path}", body)

    async def open_session(self, path: str) -> str:
        """Open the notebook with a kernel; the kernel's id. Raises BrowserError."""
        body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        session = await self._call("POST", "/api/sessions", body)
        return str(session["kernel"]["id"])

    async def start_kernel(self) -> str:
        """A new kernel beside the session, in place of one that is gone. Raises BrowserError."""
        return str((await self._call("POST", "/api/kernels", {"name": "python3"}))["id"])

    async def kernel_gone(self, kernel_id: str) -> bool:
        """Whether the server says that there is no such kernel; no answer proves nothing."""
        url = f"{self.url}/api/kernels/{kernel_id}"
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            timeout = aiohttp.ClientTimeout(total=_REST)
            async with self.http.get(url, headers=self.headers, timeout=timeout) as answer:
                return answer.status == 404
        return False

    async def _call(self, method: str, path: str, body: dict[str, Any]) -> Any:
        timeout = aiohttp.ClientTimeout(total=_REST)
        try:
            async with self.http.request(
                method, self.url + path, json=body, headers=self.headers, timeout=timeout
            ) as answer:
                text = await answer.text()
                if answer.status >= 400:
                    raise BrowserError(
                        f"{method} {path} was answered {answer.status}: {text[:300]}"
                    )
                return json.loads(text)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            what = str(error) or type(error).__name__  # a TimeoutError has no text
            raise BrowserError(f"{method} {path}: {what}") from error


class Tab:
    """One websocket to one kernel; an async context manager. Cells run one after the other."""

    def __init__(self, browser: Browser, kernel_id: str, *, clock: Callable[[], float]) -> None:
        self.kernel_id = kernel_id
        self.reconnects = 0
        self._browser, self._clock = browser, clock
        self._session_id = uuid.uuid4().hex
        self._records: dict[str, CellRecord] = {}
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None
        self._dead = False
        self._changed = asyncio.Event()
        self._heard = clock()

    def __repr__(self) -> str:
        state = "dead" if self._dead else "open" if self._socket else "closed"
        return f"<Tab {self.kernel_id} {state} {len(self._records)} cells>"

    async def __aenter__(self) -> Self:
        """Raises BrowserError."""
        try:
            self._socket = await self._dial()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrowserError(f"no websocket to kernel {self.kernel_id}: {error}") from error
        self._reading = asyncio.create_task(self._read_for_ever(), name=f"tab {self.kernel_id}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._socket is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._socket.close()

    async def run(self, record: CellRecord) -> None:
        """Execute the record's cell; returns at reply and idle. Raises KernelLost.

        A request that could not be sent is not sent again: a browser does not do it either.
        """
        await self._send(record)
        self._heard = self._clock()
        while not record.done:
            self._changed.clear()
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._changed.wait()
                if not self._dead:
                    continue
            if self._dead:
                raise KernelLost("the kernel was reported dead")
            if self._clock() - self._heard > _LOOK and await self._browser.kernel_gone(
                self.kernel_id
            ):
                raise KernelLost("the server knows the kernel no more")
            if self._clock() - self._heard > PATIENCE:
                raise KernelLost(f"nothing came for {PATIENCE:g} s")

    async def _send(self, record: CellRecord) -> None:
        msg_id = uuid.uuid4().hex
        self._records[msg_id] = record
        request = Message.from_dicts(
            channel="shell",
            header={
                "msg_id": msg_id,
                "username": "demo",
                "session": self._session_id,
                "msg_type": "execute_request",
                "version": "5.3",
                "date": "",
            },
            content={"code": record.cell.source, "silent": False, "store_history": False},
        )
        socket = self._socket
        if socket is None or socket.closed:
            return
        with suppress(ConnectionError):
            if socket.protocol == V1_SUBPROTOCOL:
                await socket.send_bytes(encode_v1(request))
            else:
                text = encode_legacy(request)
                assert isinstance(text, str), "without buffers the legacy framing is text"
                await socket.send_str(text)

    async def _dial(self) -> aiohttp.ClientWebSocketResponse:
        path = f"/api/kernels/{self.kernel_id}/channels?session_id={self._session_id}"
        async with asyncio.timeout(_HANDSHAKE):
            return await self._browser.http.ws_connect(
                self._browser.url + path,
                headers=self._browser.headers,
                protocols=(V1_SUBPROTOCOL,),
                max_msg_size=0,
            )

    async def _read_for_ever(self) -> None:
        while True:
            if self._socket is not None:
                await self._read(self._socket)
            await asyncio.sleep(_RECONNECT)
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                self._socket = await self._dial()
                self.reconnects += 1

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in socket:
            now = self._clock()
            with suppress(FrameError):  # the server's own affair; what is missing is counted
                if frame.type is aiohttp.WSMsgType.BINARY and socket.protocol == V1_SUBPROTOCOL:
                    self._take(decode_v1(frame.data), now)
                elif frame.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
                    self._take(decode_legacy(frame.data), now)

    def _take(self, message: Message, now: float) -> None:
        self._heard = now
        if message.msg_type == "status" and message.content_dict()["execution_state"] == "dead":
            self._dead = True
        record = self._records.get(message.parent_id)
        if record is not None:
            record.take(message, now)
        self._changed.set()
