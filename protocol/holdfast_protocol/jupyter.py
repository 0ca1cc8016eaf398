"""The two websocket framings of Jupyter messages, and the value that both become.

Sources: "Websocket kernel wire protocol" in the Jupyter Server documentation
(``v1.kernel.websocket.jupyter.org``: little-endian 64-bit offsets, then the parts) and the
legacy default (JSON text; with buffers, big-endian 32-bit offsets, the JSON first).

A message stays in its serialised parts: what a kernel signed is what a client gets, byte for
byte. Headers are parsed only on demand. Signing is not this module's business.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from .errors import FrameError
from .pieces import Buffer, Pieces, gather

V1_SUBPROTOCOL: Final = "v1.kernel.websocket.jupyter.org"

#: Channels that a client may write to, and that a kernel answers on.
CHANNELS: Final = frozenset({"shell", "control", "stdin", "iopub", "hb"})
CLIENT_CHANNELS: Final = frozenset({"shell", "control", "stdin"})

_U64: Final = struct.Struct("<Q")
_U32BE: Final = struct.Struct(">I")
# channel, header, parent_header, metadata, content, and the end of the last part
_MIN_OFFSETS: Final = 6

#: A v1 message of more bytes than this is not joined (``lay_out_v1``), and buffers of more are
#: not copied out of one (``decode_v1``).
LONG_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Message:
    """One Jupyter message: its channel and its serialised parts.

    ``header``, ``parent``, ``metadata`` and ``content`` are JSON objects as UTF-8 bytes;
    ``buffers`` are the binary buffers, in order; long ones may be views of what was received.
    """

    channel: str
    header: bytes
    parent: bytes
    metadata: bytes
    content: bytes
    buffers: tuple[Buffer, ...] = field(default=())

    @cached_property
    def header_dict(self) -> dict[str, Any]:
        """The parsed header. Raises FrameError when it is not a JSON object."""
        return _object(self.header, "header")

    @cached_property
    def parent_dict(self) -> dict[str, Any]:
        """The parsed parent header; empty when there is none."""
        return _object(self.parent, "parent_header")

    @property
    def msg_id(self) -> str:
        return str(self.header_dict.get("msg_id", ""))

    @property
    def msg_type(self) -> str:
        return str(self.header_dict.get("msg_type", ""))

    @property
    def parent_id(self) -> str:
        return str(self.parent_dict.get("msg_id", ""))

    def content_dict(self) -> dict[str, Any]:
        """The parsed content (not cached: contents are large). Raises FrameError."""
        return _object(self.content, "content")

    @classmethod
    def from_dicts(
        cls,
        *,
        channel: str,
        header: dict[str, Any],
        parent: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        content: dict[str, Any] | None = None,
        buffers: tuple[Buffer, ...] = (),
    ) -> Message:
        """Build a message from dictionaries, as one does for messages of our own."""
        return cls(
            channel,
            _dump(header),
            _dump(parent or {}),
            _dump(metadata or {}),
            _dump(content or {}),
            buffers,
        )


def encode_v1(message: Message) -> bytes:
    """Serialise to ``v1.kernel.websocket.jupyter.org``: one binary websocket message."""
    return join_v1(
        message.channel,
        (message.header, message.parent, message.metadata, message.content, *message.buffers),
    )


def join_v1(channel: str, parts: Sequence[Buffer]) -> bytes:
    """Serialise raw parts (header, parent, metadata, content, *buffers) without parsing any."""
    return b"".join((_offsets(channel, parts), *parts))


def lay_out_v1(channel: str, parts: Sequence[Buffer]) -> bytes | Pieces:
    """As ``join_v1``, but a long message's long parts stay where they are."""
    head = _offsets(channel, parts)
    if len(head) + sum(map(len, parts)) <= LONG_BYTES:
        return b"".join((head, *parts))
    return Pieces(gather((head, *parts)))


def _offsets(channel: str, parts: Sequence[Buffer]) -> bytes:
    """What stands before the parts: the offsets and the channel's name."""
    name = channel.encode()
    count = len(parts) + 2
    position = 8 * (count + 1)
    offsets = [count, position]
    position += len(name)
    offsets.append(position)
    for part in parts:
        position += len(part)
        offsets.append(position)
    return struct.pack(f"<{len(offsets)}Q", *offsets) + name


def decode_v1(data: Buffer) -> Message:
    """Parse one binary v1 websocket message. Raises FrameError."""
    size = len(data)
    if size < 8:
        raise FrameError(f"v1 message of {size} bytes is shorter than its offset count")
    (count,) = _U64.unpack_from(data, 0)
    if count < _MIN_OFFSETS or 8 * (count + 1) > size:
        raise FrameError(f"v1 message has an impossible offset count: {count}")
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    if offsets[0] != 8 * (count + 1) or offsets[-1] != size:
        raise FrameError("v1 offsets do not cover the message")
    if any(low > high for low, high in pairwise(offsets)):
        raise FrameError("v1 offsets decrease")
    view = memoryview(data)
    parts = [bytes(view[a:b]) for a, b in pairwise(offsets[:6])]
    # bytes do not change, so a view of them is as good as a copy and costs nothing
    stable = isinstance(data, bytes)
    buffers = tuple(
        view[a:b] if stable and b - a > LONG_BYTES else bytes(view[a:b])
        for a, b in pairwise(offsets[5:])
    )
    return Message(_channel(parts[0]), parts[1], parts[2], parts[3], parts[4], buffers)


def channel_of_v1(data: Buffer) -> str:
    """The channel of a v1 message, without touching its other parts. Raises FrameError."""
    if len(data) < 24:
        raise FrameError("v1 message is shorter than its first offsets")
    low, high = struct.unpack_from("<2Q", data, 8)
    if not 24 <= low <= high <= len(data):
        raise FrameError("v1 channel offsets are outside the message")
    return _channel(bytes(memoryview(data)[low:high]))


def encode_legacy(message: Message) -> str | bytes:
    """Serialise to the legacy framing: text without buffers, binary with.

    The parts are spliced into the envelope unparsed, so numbers keep their digits.
    """
    envelope = (
        b'{"channel":' + _dump(message.channel) + b',"header":' + message.header
        + b',"parent_header":' + (message.parent or b"{}")
        + b',"metadata":' + (message.metadata or b"{}")
        + b',"content":' + (message.content or b"{}")
        + b',"msg_id":' + _dump(message.msg_id) + b',"msg_type":' + _dump(message.msg_type)
        + b',"buffers":[]}'
    )  # fmt: skip
    if not message.buffers:
        return envelope.decode("utf-8", "replace")
    parts: list[Buffer] = [envelope, *message.buffers]
    position = 4 * (len(parts) + 1)
    offsets = []
    for part in parts:
        offsets.append(position)
        position += len(part)
    return b"".join((struct.pack(f">{len(parts) + 1}I", len(parts), *offsets), *parts))


def decode_legacy(data: str | Buffer) -> Message:
    """Parse a legacy websocket message, text or binary. Raises FrameError.

    Jupyter's own server accepts a missing ``channel`` as shell; so do we.
    """
    buffers: tuple[Buffer, ...] = ()
    if not isinstance(data, str):
        data, buffers = _split_legacy(bytes(data))
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise FrameError(f"legacy message is not JSON: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("header"), dict):
        raise FrameError("legacy message has no header object")
    channel = _channel(str(fields.get("channel") or "shell").encode())
    return Message.from_dicts(
        channel=channel,
        header=fields["header"],
        parent=fields.get("parent_header") or {},
        metadata=fields.get("metadata") or {},
        content=fields.get("content") or {},
        buffers=buffers,
    )


def _split_legacy(data: bytes) -> tuple[str, tuple[bytes, ...]]:
    if len(data) < 8:
        raise FrameError("legacy binary message is shorter than its offsets")
    (count,) = _U32BE.unpack_from(data, 0)
    if count < 1 or 4 * (count + 1) > len(data):
        raise FrameError(f"legacy binary message has an impossible part count: {count}")
    offsets = [*struct.unpack_from(f">{count}I", data, 4), len(data)]
    if offsets[0] < 4 * (count + 1) or any(low > high for low, high in pairwise(offsets)):
        raise FrameError("legacy binary offsets are not in order")
    parts = [data[a:b] for a, b in pairwise(offsets)]
    try:
        return parts[0].decode(), tuple(parts[1:])
    except UnicodeDecodeError as error:
        raise FrameError(f"legacy message is not UTF-8: {error}") from error


def _channel(raw: bytes) -> str:
    name = raw.decode("ascii", "replace")
    if name not in CHANNELS:
        raise FrameError(f"unknown channel {name!r}")
    return name


def _object(raw: bytes, what: str) -> dict[str, Any]:
    if not raw:
        return {}
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise FrameError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FrameError(f"{what} is not a JSON object")
    return value


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
