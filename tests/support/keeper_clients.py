"""Clients of a keeper for tests: a resuming stream client and a plain one, over aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from typing import Any

import aiohttp

from holdfast_protocol.frames import STREAM_SUBPROTOCOL
from holdfast_protocol.jupyter import (
    V1_SUBPROTOCOL,
    Message,
    decode_legacy,
    decode_v1,
    encode_legacy,
    encode_v1,
)
from holdfast_protocol.stream.client import ByeReceived, ClientStream, Delivered, Event, GapSeen
from holdfast_protocol.stream.state import ClientState

from .keeper_process import KeeperProcess

SECONDS = 30.0


def execute(code: str, session: str = "client") -> Message:
    header = {
        "msg_id": uuid.uuid4().hex,
        "session": session,
        "msg_type": "execute_request",
        "version": "5.3",
        "username": "me",
        "date": "2026-01-01T00:00:00.000000Z",
    }
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": True}
    return Message.from_dicts(channel="shell", header=header, content=content)


def input_reply(value: str) -> Message:
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "input_reply", "session": "client"}
    return Message.from_dicts(channel="stdin", header=header, content={"value": value})


def texts(messages: list[Message], parent: Message | None = None) -> list[str]:
    """The texts of the ``stream`` messages, of one request if given."""
    return [
        str(message.content_dict()["text"])
        for message in messages
        if message.msg_type == "stream" and (parent is None or message.parent_id == parent.msg_id)
    ]


class Received:
    """Messages in the order of their arrival, and which requests have ended."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.outputs = 0  # ``stream`` messages, counted because a burst has many
        self._replied: set[str] = set()
        self._idle: set[str] = set()

    def take(self, message: Message) -> None:
        self.messages.append(message)
        if message.channel == "shell":
            self._replied.add(message.parent_id)
        elif b'"status"' in message.header and b"idle" in message.content:
            self._idle.add(message.parent_id)
        elif b'"stream"' in message.header:
            self.outputs += 1

    def has(self, msg_type: str) -> bool:
        """Whether one of this type came; iopub and stdin are not in order to one another."""
        return any(message.msg_type == msg_type for message in self.messages)

    def idle(self, request: Message) -> bool:
        return request.msg_id in self._idle

    def done(self, request: Message) -> bool:
        """Whether ``request`` has its reply and its idle."""
        return request.msg_id in self._replied and request.msg_id in self._idle


class StreamClient(Received):
    """One session over any number of connections; keeps what it was delivered."""

    def __init__(self, keeper: KeeperProcess, session_id: str = "s-1") -> None:
        super().__init__()
        self.keeper = keeper
        self.session_id = session_id
        self.stream = ClientStream(uuid.uuid4().bytes)
        self.sizes: list[int] = []
        self.gaps: list[GapSeen] = []
        self.byes: list[ByeReceived] = []
        self.close_code: int | None = None
        self.ws: aiohttp.ClientWebSocketResponse | None = None
        self.acks = True
        self.pings = 0

    async def connect(self, **options: Any) -> None:
        self.close_code = None
        self.ws = await self.keeper.websocket(self.session_id, STREAM_SUBPROTOCOL, **options)
        await self.ws.send_bytes(self.stream.connect())

    async def live(self) -> None:
        """Until RESUMED has come: from then on what is sent goes out at once."""
        await self.until(lambda: self.stream.state is ClientState.LIVE)

    async def send(self, message: Message) -> int:
        seq = self.stream.send(encode_v1(message))
        await self.flush()
        return seq

    async def flush(self) -> None:
        assert self.ws is not None
        for frame in self.stream.next_frames():
            await self.ws.send_bytes(frame)

    async def step(self) -> list[Event]:
        """Take one websocket message; [] for control frames and at the end."""
        assert self.ws is not None
        message = await self.ws.receive(timeout=SECONDS)
        if message.type is aiohttp.WSMsgType.PING:
            self.pings += 1
            with contextlib.suppress(ConnectionError):  # what came before it is still read
                await self.ws.pong(message.data)
            return []
        if message.type is not aiohttp.WSMsgType.BINARY:
            if message.type is not aiohttp.WSMsgType.PONG:
                self.close_code = self.ws.close_code or 1006
                self.stream.disconnected()
            return []
        events = self.stream.receive(message.data)
        for event in events:
            if isinstance(event, Delivered):
                self.take(decode_v1(event.message))
                self.sizes.append(len(event.message))
                self.stream.consumed(event.seq)
            elif isinstance(event, GapSeen):
                self.gaps.append(event)
                for notice in event.notices:
                    self.take(decode_v1(notice))
                self.stream.consumed(event.last)
            elif isinstance(event, ByeReceived):
                self.byes.append(event)
        ack = self.stream.take_ack() if self.acks else None
        with contextlib.suppress(ConnectionError):
            if ack is not None:
                await self.ws.send_bytes(ack)
            await self.flush()
        return events

    async def until(self, condition: Callable[[], bool]) -> None:
        """Take messages until ``condition``; fails when the connection ends before."""
        async with asyncio.timeout(2 * SECONDS):
            while not condition():
                assert self.close_code is None, f"closed with {self.close_code}"
                await self.step()

    async def until_closed(self) -> int:
        async with asyncio.timeout(2 * SECONDS):
            while self.close_code is None:
                await self.step()
        return self.close_code

    async def run(self, code: str) -> tuple[Message, list[str]]:
        """Run a cell to its end; returns the request and its output."""
        request = execute(code)
        await self.send(request)
        await self.until(lambda: self.done(request))
        return request, texts(self.messages, request)

    def cut(self) -> None:
        """The network is gone: no close frame, no FIN in time."""
        assert self.ws is not None
        response = self.ws._response
        if response.connection is not None and response.connection.transport is not None:
            response.connection.transport.abort()
        self.stream.disconnected()
        self.ws = None


class PlainClient(Received):
    """A plain websocket client; ``legacy`` speaks the default JSON framing."""

    def __init__(
        self, keeper: KeeperProcess, session_id: str | None = "p-1", *, legacy: bool = False
    ) -> None:
        super().__init__()
        self.keeper = keeper
        self.session_id = session_id
        self.legacy = legacy
        self.pongs = True
        self.close_code: int | None = None
        self.ws: aiohttp.ClientWebSocketResponse | None = None

    async def connect(self, **options: Any) -> None:
        self.close_code = None
        protocols = () if self.legacy else (V1_SUBPROTOCOL,)
        self.ws = await self.keeper.websocket(self.session_id, *protocols, **options)
        assert self.ws.protocol == (None if self.legacy else V1_SUBPROTOCOL)

    async def send(self, message: Message) -> None:
        assert self.ws is not None
        if not self.legacy:
            await self.ws.send_bytes(encode_v1(message))
            return
        encoded = encode_legacy(message)
        if isinstance(encoded, str):
            await self.ws.send_str(encoded)
        else:
            await self.ws.send_bytes(encoded)

    async def step(self) -> None:
        assert self.ws is not None
        message = await self.ws.receive(timeout=SECONDS)
        if message.type is aiohttp.WSMsgType.PING:
            if self.pongs:
                with contextlib.suppress(ConnectionError):
                    await self.ws.pong(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            self.take(decode_legacy(message.data) if self.legacy else decode_v1(message.data))
        elif message.type is aiohttp.WSMsgType.TEXT:
            self.take(decode_legacy(message.data))
        elif message.type is not aiohttp.WSMsgType.PONG:
            self.close_code = self.ws.close_code or 1006

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(2 * SECONDS):
            while not condition():
                assert self.close_code is None, f"closed with {self.close_code}"
                await self.step()

    async def until_closed(self) -> int:
        async with asyncio.timeout(2 * SECONDS):
            while self.close_code is None:
                await self.step()
        return self.close_code

    async def run(self, code: str) -> tuple[Message, list[str]]:
        request = execute(code)
        await self.send(request)
        await self.until(lambda: self.done(request))
        return request, texts(self.messages, request)

    def cut(self) -> None:
        """The network is gone."""
        assert self.ws is not None
        response = self.ws._response
        if response.connection is not None and response.connection.transport is not None:
            response.connection.transport.abort()
        self.ws = None
