"""The client's side of RFC 6455 without I/O: handshake bytes, frames out, frames in.

Why not tornado's client: it awaits three futures per frame, reads 64 KiB at a time, shows
neither raw bytes (the proof of life) nor flow control of its reader. It knows nothing of Jupyter.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SMALLEST = 128 * 1024
_LARGEST_KEPT = 1024 * 1024
_MAX_HEADER = 10


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class WebSocketFault(Exception):
    """The peer broke RFC 6455, or its answer is no websocket's."""


@dataclass(frozen=True, slots=True)
class HandshakeAnswer:
    """The HTTP answer to an upgrade request; header names are in lower case. ``body`` only when
    it is no 101, and perhaps not whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def handshake_request(
    *, host: str, target: str, key: str, headers: Mapping[str, str], subprotocols: Sequence[str]
) -> bytes:
    """The upgrade request (RFC 6455 section 4.1). Raises ValueError on a header with a newline."""
    lines = [f"GET {target} HTTP/1.1"]
    fields = {
        **headers,
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": ", ".join(subprotocols),
    }
    lines += [f"{name}: {value}" for name, value in fields.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header contains a newline")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def parse_answer(head: bytes) -> HandshakeAnswer:
    """Parse the status line and the headers, without the empty line. Raises WebSocketFault."""
    first, *rest = head.decode("latin-1").split("\r\n")
    try:
        status = int(first.split(" ", 2)[1])
    except (IndexError, ValueError):
        raise WebSocketFault(f"not an HTTP answer: {first[:80]!r}") from None
    headers = {}
    for line in rest:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return HandshakeAnswer(status, headers)


def body_length(answer: HandshakeAnswer) -> int:
    """What Content-Length says; 0 when it is missing or malformed: then no body is waited for."""
    try:
        return max(0, int(answer.headers.get("content-length", "0")))
    except ValueError:
        return 0


def check_upgrade(answer: HandshakeAnswer, key: str) -> None:
    """Raises WebSocketFault unless the 101 proves that the peer read our key."""
    expected = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()  # noqa: S324 - RFC 6455 says SHA-1; nothing secret hangs on it
    if answer.headers.get("sec-websocket-accept") != expected:
        raise WebSocketFault("wrong Sec-WebSocket-Accept")
    if "sec-websocket-extensions" in answer.headers:
        raise WebSocketFault("the peer chose an extension that was not offered")


def encode_frame(opcode: Opcode, payload: bytes, mask: bytes) -> bytes:
    """One final, masked frame; ``mask`` is 4 random bytes (RFC 6455 section 5.3)."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0xFF, size)
    repeated = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
    return b"".join((head, mask, number.to_bytes(size, "little")))


def server_header(opcode: Opcode, size: int) -> bytes:
    """The header of one final, unmasked frame, as a server sends it."""
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, size)
    if size < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size)
    return struct.pack("!BBQ", 0x80 | opcode, 127, size)


class FrameReader:
    """Frames out of received bytes, in place: fill ``writable()``, then ask ``frames(n)``.

    A yielded payload is a view into the buffer and dies with the next step of the iterator.
    Fragments of a message are joined. ``max_bytes`` bounds one message.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max = max_bytes
        self._buffer = bytearray(_SMALLEST)
        self._start = 0
        self._end = 0
        self._need = 2
        self._parts: bytearray | None = None
        self._parts_opcode = Opcode.BINARY

    def __repr__(self) -> str:
        return f"<FrameReader {self._end - self._start} of {self._need} bytes>"

    def writable(self) -> memoryview:
        """Where the next received bytes belong; never empty."""
        have = self._end - self._start
        if self._start == self._end and len(self._buffer) > _LARGEST_KEPT:
            self._buffer = bytearray(_SMALLEST)
        size = max(self._need, have + 4096)
        if size > len(self._buffer):
            larger = bytearray(size + _MAX_HEADER)
            larger[:have] = memoryview(self._buffer)[self._start : self._end]
            self._buffer, self._start, self._end = larger, 0, have
        elif have == 0:
            self._start = self._end = 0
        elif self._start + size > len(self._buffer):
            view = memoryview(self._buffer)
            view[:have] = view[self._start : self._end]
            self._start, self._end = 0, have
        return memoryview(self._buffer)[self._end :]

    def frames(self, received: int) -> Iterator[tuple[Opcode, memoryview]]:
        """Complete messages and control frames after ``received`` more bytes are in.

        Raises WebSocketFault.
        """
        self._end += received
        view = memoryview(self._buffer)
        while True:
            head = self._head(view)
            if head is None:
                return
            first, offset, size = head
            self._need = offset + size
            if self._end - self._start < self._need:
                return
            begin = self._start + offset
            self._start, self._need = begin + size, 2
            message = self._message(first, view[begin : begin + size])
            if message is not None:
                yield message

    def _head(self, view: memoryview) -> tuple[int, int, int] | None:
        """(first byte, header length, payload length), or None while the header is short."""
        have = self._end - self._start
        if have < 2:
            self._need = 2
            return None
        first, second = view[self._start], view[self._start + 1]
        if first & 0x70 or second & 0x80:
            raise WebSocketFault("reserved bits, or a masked frame from a server")
        size, offset = second & 0x7F, 2
        if size >= 126:
            offset = 4 if size == 126 else 10
            if have < offset:
                self._need = offset
                return None
            shape = "!H" if size == 126 else "!Q"
            (size,) = struct.unpack_from(shape, view, self._start + 2)
        joined = 0 if self._parts is None else len(self._parts)
        if size + joined > self._max:
            raise WebSocketFault(f"message of {size + joined} bytes is above {self._max}")
        return first, offset, size

    def _message(self, first: int, payload: memoryview) -> tuple[Opcode, memoryview] | None:
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise WebSocketFault(f"unknown opcode {first & 0x0F}") from None
        final = bool(first & 0x80)
        if opcode >= Opcode.CLOSE:
            if not final or len(payload) > 125:
                raise WebSocketFault("control frame is fragmented or too long")
            return opcode, payload
        if (opcode is Opcode.CONTINUATION) != (self._parts is not None):
            raise WebSocketFault("fragments out of order")
        if self._parts is None:
            if final:
                return opcode, payload
            self._parts, self._parts_opcode = bytearray(), opcode
        self._parts += payload
        if not final:
            return None
        whole, self._parts = self._parts, None
        return self._parts_opcode, memoryview(whole)
