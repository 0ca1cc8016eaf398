"""The websocket upgrade on both legs of a tunnel, as bytes in and values out.

RFC 6455 section 4: what a client asks us, what we ask the keeper, what the keeper answers, what we
answer the client. Nothing here does I/O. It must not know a frame: after the two 101s the tunnel
is blind. Rejected: forwarding the client's own request (it carries its token, its cookies, and
extensions that the keeper would have to honour with bytes we cannot see).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from holdfast_protocol.frames import STREAM_SUBPROTOCOL
from holdfast_protocol.jupyter import V1_SUBPROTOCOL

from ...errors import BadRequest

#: What the keeper speaks besides legacy JSON, which has no name.
SUBPROTOCOLS: Final = frozenset({STREAM_SUBPROTOCOL, V1_SUBPROTOCOL})
#: An answer's head longer than this many bytes is no keeper's.
MAX_HEAD_BYTES: Final = 16 * 1024
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MAX_SESSION_ID: Final = 256
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class HandshakeError(Exception):
    """The keeper's answer is not what RFC 6455 asks for; the connection is of no use."""


@dataclass(frozen=True, slots=True)
class ClientUpgrade:
    """A client's upgrade request, validated: its key, the subprotocols we know, its session."""

    key: str
    subprotocols: tuple[str, ...]
    session_id: str | None


@dataclass(frozen=True, slots=True)
class KeeperAnswer:
    """The head of a keeper's answer; ``headers`` have lower-case names."""

    status: int
    headers: Mapping[str, str]

    @property
    def subprotocol(self) -> str | None:
        return self.headers.get("sec-websocket-protocol")


def read_upgrade(headers: Mapping[str, str], session_id: str | None) -> ClientUpgrade:
    """Validate a client's upgrade (``headers`` looks names up without regard to case).

    Raises BadRequest with what is missing (RFC 6455 section 4.2.1).
    """
    tokens = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
    if headers.get("Upgrade", "").strip().lower() != "websocket" or "upgrade" not in tokens:
        raise BadRequest("this address speaks websocket only: send an upgrade request")
    if headers.get("Sec-WebSocket-Version", "").strip() != "13":
        raise BadRequest("Sec-WebSocket-Version must be 13")
    key = headers.get("Sec-WebSocket-Key", "").strip()
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64")
    if session_id is not None and (
        len(session_id) > _MAX_SESSION_ID or not session_id.isprintable()
    ):
        raise BadRequest(f"session_id must be at most {_MAX_SESSION_ID} printable characters")
    offered = [name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    known = tuple(name for name in offered if name in SUBPROTOCOLS)
    return ClientUpgrade(key, known, session_id or None)


def keeper_request(
    upgrade: ClientUpgrade,
    *,
    key: str,
    authority: str,
    credential: str,
    tunnel_id: str,
    user: str,
    grants: str,
) -> bytes:
    """Our own upgrade request to a keeper (wire.md, "Keeper").

    Only the session id and the subprotocols come from the client. Raises ValueError for a
    control character in a value: a header must never be able to end early.
    """
    target = "/v1/channels"
    if upgrade.session_id is not None:
        target += "?session_id=" + quote(upgrade.session_id, safe="")
    headers = {
        "Host": authority,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Authorization": f"Bearer {credential}",
        "Holdfast-Tunnel": tunnel_id,
        "Holdfast-User": user,
        "Holdfast-Grants": grants,
    }
    if upgrade.subprotocols:
        headers["Sec-WebSocket-Protocol"] = ", ".join(upgrade.subprotocols)
    for name, value in headers.items():
        if _CONTROL.search(value) is not None:
            raise ValueError(f"control character in {name}")
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def client_answer(key: str, subprotocol: str | None) -> bytes:
    """The 101 for a client: Accept and Protocol, nothing of the keeper's."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_value(key)}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def accept_value(key: str) -> str:
    """Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def check_answer(answer: KeeperAnswer, *, key: str, offered: tuple[str, ...]) -> None:
    """Raise HandshakeError unless this 101 answers our request (RFC 6455 section 4.1)."""
    accept = answer.headers.get("sec-websocket-accept", "")
    if not hmac.compare_digest(accept.encode(), accept_value(key).encode()):
        raise HandshakeError("the keeper's Sec-WebSocket-Accept does not fit our key")
    if answer.subprotocol is not None and answer.subprotocol not in offered:
        raise HandshakeError(f"the keeper chose a subprotocol not offered: {answer.subprotocol!r}")
    if answer.headers.get("sec-websocket-extensions"):
        raise HandshakeError("the keeper chose an extension; none was offered")


class AnswerReader:
    """Collects an HTTP answer's head from pieces; what follows the head is left in ``tail``."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.tail = b""

    def __repr__(self) -> str:
        return f"<AnswerReader {len(self._buffer)} bytes>"

    def feed(self, data: bytes) -> KeeperAnswer | None:
        """The answer once its head is whole. Raises HandshakeError. Not to be fed after that."""
        searched = max(0, len(self._buffer) - 3)
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", searched)
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
            raise HandshakeError(f"the keeper's answer has a head above {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return None
        self.tail = bytes(self._buffer[end + 4 :])
        return _parse_head(bytes(self._buffer[:end]))


def _parse_head(head: bytes) -> KeeperAnswer:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 ([1-5][0-9]{2})(?: .*)?", status_line)
    if match is None:
        raise HandshakeError(f"the keeper's answer is not HTTP/1.1: {status_line[:80]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HandshakeError(f"the keeper's answer has a malformed header: {line[:80]!r}")
        headers[name.lower()] = value.strip()
    return KeeperAnswer(int(match[1]), headers)
