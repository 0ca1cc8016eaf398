"""One websocket to a gateway, from dial to loss.

It moves frames and tells when bytes last came; it knows neither streams nor kernels nor which
gateway is better. Liveness is decided by ``silence``, a pure function, on any byte that came:
waiting for a pong alone was rejected, because a pong queues behind a long output.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from .websocket import (
    FrameReader,
    HandshakeAnswer,
    Opcode,
    WebSocketFault,
    body_length,
    check_upgrade,
    encode_frame,
    handshake_request,
    parse_answer,
)

#: Seconds without a byte after which we ping, and after which the connection is given up.
PING_AFTER = 1.0
DEAD_AFTER = 2.0
#: The largest single websocket message taken: frames of ours are small, but a gateway of
#: another make sends an output in one piece.
MAX_MESSAGE_BYTES = 2 << 30
_MAX_HEAD = 64 * 1024
#: So much of a refusal's body is read for its words.
_MAX_BODY = 4096


class DialFailed(Exception):
    """No websocket came about. ``status``: the HTTP answer, None when there was none. ``said``:
    the gateway's own words, made for people; empty when it had none."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        said: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.said = said


@dataclass(frozen=True, slots=True)
class Loss:
    """How a connection ended: the peer's close code, or None when it just broke."""

    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to dial and with what; ``headers`` carry the secret."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    subprotocols: Sequence[str]
    ssl_context: ssl.SSLContext | None = None


class Receiver(Protocol):
    """Who owns a connection. Both are called on the event loop and must not block."""

    def message_received(self, payload: memoryview, *, text: bool) -> None:
        """``payload`` is valid during the call only."""

    def connection_gone(self, loss: Loss) -> None:
        """Once, whatever the cause, unless ``Upstream.abandon`` was called."""

    def may_write(self) -> None:
        """The write buffer has room again."""


def silence(*, now: float, last_byte: float, pinged: float) -> tuple[bool, bool, float]:
    """What silence means: (send a ping, give up, when to look again); seconds of one clock.

    Invariant: nobody is given up who was not asked: a ping must have gone out after the last
    byte, and DEAD_AFTER - PING_AFTER seconds ago, so that a loop of ours that stood still is
    not taken for the peer's silence.
    """
    quiet = now - last_byte
    if quiet < PING_AFTER:
        return False, False, last_byte + PING_AFTER
    if pinged <= last_byte:
        return True, False, now + DEAD_AFTER - PING_AFTER
    if quiet >= DEAD_AFTER and now - pinged >= DEAD_AFTER - PING_AFTER:
        return False, True, now
    return False, False, max(last_byte + DEAD_AFTER, pinged + DEAD_AFTER - PING_AFTER)


class Upstream(asyncio.BufferedProtocol):
    """An open websocket. Made by ``dial``."""

    def __init__(self, key: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver | None = None
        self._key = key
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(max_bytes=MAX_MESSAGE_BYTES)
        self._head: bytearray | None = bytearray()
        self._loss: Loss | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._early = b""
        self._refusal: HandshakeAnswer | None = None
        self._open = False
        self._pinged = 0.0
        self._paused = False
        self.last_byte = self._loop.time()
        self.writable = True
        self.subprotocol: str | None = None
        self.answered: asyncio.Future[HandshakeAnswer] = self._loop.create_future()

    def __repr__(self) -> str:
        state = "closed" if self._transport is None else "paused" if self._paused else "open"
        return f"<Upstream {state} {self.subprotocol or 'legacy'}>"

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.writable()

    def buffer_updated(self, nbytes: int) -> None:
        self.last_byte = self._loop.time()
        try:
            if self._head is not None:
                self._take_head(nbytes)
            else:
                self._take_frames(nbytes)
        except WebSocketFault as fault:
            self._end(Loss(None, str(fault)))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Loss(None, str(exc) if exc else "closed without a word"))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self._receiver is not None:
            self._receiver.may_write()

    # the owner's side

    def send(self, payload: bytes | str) -> None:
        """Write one message: text for str. Nothing happens on a closed connection."""
        if isinstance(payload, str):
            self._write(Opcode.TEXT, payload.encode())
        else:
            self._write(Opcode.BINARY, payload)

    def pause(self) -> None:
        """Stop reading. Pings go on, so that the peer keeps us."""
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self._paused:
            self._paused = False
            self.last_byte = self._loop.time()
            self._transport.resume_reading()

    def abandon(self, code: int = 1000, reason: str = "") -> None:
        """Close; the receiver hears nothing more."""
        self._receiver = None
        if self._open:
            self._write(Opcode.CLOSE, struct.pack("!H", code) + reason.encode()[:120])
        self._end(Loss(code, reason))

    def begin(self, receiver: Receiver) -> None:
        """The owner is ready: give it what came with the handshake, read on, watch liveness."""
        self._receiver = receiver
        if self._loss is not None:
            self._loop.call_soon(self._end, self._loss)
            return
        self.last_byte = self._loop.time()
        self._timer = self._loop.call_later(PING_AFTER, self._look)
        for position in range(0, len(self._early), 4096):
            piece = self._early[position : position + 4096]
            self._reader.writable()[: len(piece)] = piece
            self.buffer_updated(len(piece))
        self._early = b""
        if self._transport is not None and not self._paused:
            self._transport.resume_reading()

    def _look(self) -> None:
        now = self._loop.time()
        if self._paused:
            self._write(Opcode.PING, b"")
            self._timer = self._loop.call_later(PING_AFTER, self._look)
            return
        ping, dead, again = silence(now=now, last_byte=self.last_byte, pinged=self._pinged)
        if dead:
            self._end(Loss(None, f"silent for {now - self.last_byte:.1f} s"))
            return
        if ping:
            self._pinged = now
            self._write(Opcode.PING, b"")
        self._timer = self._loop.call_at(again, self._look)

    def _take_head(self, nbytes: int) -> None:
        assert self._head is not None
        # The reader's buffer is empty until the answer is whole, so the bytes are at its start.
        self._head += self._reader.writable()[:nbytes]
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > _MAX_HEAD:
                raise WebSocketFault("the HTTP answer has no end")
            return
        head, early = bytes(self._head[:end]), bytes(self._head[end + 4 :])
        answer = parse_answer(head)
        if answer.status != 101:
            answer = self._refusal = replace(answer, body=early[:_MAX_BODY])
            if len(early) < min(body_length(answer), _MAX_BODY):
                return
        self._early, self._head = early, None
        if answer.status == 101:
            check_upgrade(answer, self._key)
            self.subprotocol = answer.headers.get("sec-websocket-protocol") or None
            self._open = True
        # Nothing more is read until ``begin``: the owner has to know us before a message comes.
        if self._transport is not None:
            self._transport.pause_reading()
        if not self.answered.done():
            self.answered.set_result(answer)

    def _take_frames(self, nbytes: int) -> None:
        for opcode, payload in self._reader.frames(nbytes):
            if opcode is Opcode.PING:
                self._write(Opcode.PONG, bytes(payload))
            elif opcode is Opcode.CLOSE:
                code = struct.unpack_from("!H", payload)[0] if len(payload) >= 2 else None
                self._write(Opcode.CLOSE, bytes(payload[:2]))
                self._end(Loss(code, bytes(payload[2:]).decode("utf-8", "replace")))
            elif opcode is not Opcode.PONG and self._receiver is not None:
                self._receiver.message_received(payload, text=opcode is Opcode.TEXT)
            if self._transport is None:
                return

    def _write(self, opcode: Opcode, payload: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(opcode, payload, os.urandom(4)))

    def _end(self, loss: Loss) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            # close, not abort: what was written last (a close frame) should still go out
            transport.close()
            self._loop.call_later(1.0, transport.abort)
        if self._timer is not None:
            self._timer.cancel()
        self._loss, self._open = self._loss or loss, False
        if not self.answered.done() and self._refusal is not None:
            self.answered.set_result(self._refusal)
        elif not self.answered.done():
            self.answered.set_exception(DialFailed(loss.reason))
            self.answered.exception()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connection_gone(self._loss)


async def dial(target: Target, *, timeout: float) -> Upstream:
    """Open a websocket within ``timeout`` seconds; the caller then calls ``begin``.

    Raises DialFailed and nothing else.
    """
    parts = urlsplit(target.url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    key = base64.b64encode(os.urandom(16)).decode()
    request = handshake_request(
        host=parts.netloc.rpartition("@")[2],
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        key=key,
        headers=target.headers,
        subprotocols=target.subprotocols,
    )
    options: dict[str, Any] = {"ssl": target.ssl_context} if secure else {}
    upstream: Upstream | None = None
    try:
        async with asyncio.timeout(timeout):
            transport, upstream = await asyncio.get_running_loop().create_connection(
                lambda: Upstream(key), host, port, **options
            )
            transport.write(request)
            answer = await upstream.answered
    except (OSError, TimeoutError, ssl.SSLError) as error:
        if upstream is not None:
            upstream.abandon()
        raise DialFailed(str(error) or f"no answer within {timeout:g} s") from error
    except (asyncio.CancelledError, DialFailed):
        if upstream is not None:
            upstream.abandon()
        raise
    if answer.status != 101:
        upstream.abandon()
        raise DialFailed(
            f"HTTP {answer.status}",
            status=answer.status,
            retry_after=retry_after(answer.headers),
            said=words_of(answer.body),
        )
    return upstream


def words_of(body: bytes) -> str:
    """The ``message`` of a gateway's JSON error, in one line; empty when there is none."""
    try:
        fields = json.loads(body)
    except ValueError:
        return ""
    said = fields.get("message") or fields.get("reason") if isinstance(fields, dict) else None
    return " ".join(str(said or "").split())[:300]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The Retry-After of an answer in seconds (RFC 9110 10.2.3; its date form is ignored)."""
    value = headers.get("retry-after") or headers.get("Retry-After")
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None
