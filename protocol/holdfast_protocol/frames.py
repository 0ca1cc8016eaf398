"""The frames of ``v1.stream.holdfast``: bytes to values and back.

One frame is one binary websocket message: a type byte, then little-endian fixed fields, then
what varies. This module knows the layout and nothing of what a frame means for a stream; that
is ``stream``'s. Everything here is versioned by RESUME's ``version``.

Layout (``docs/reference/wire.md`` draws it)::

    RESUME       01  version u8, client_id 16, attempt u64, epoch 16, seq u64, offset u64,
                     first_unacked u64
    RESUMED      02  version u8, epoch 16, seq u64, offset u64, accepted u64
    CLIENT_DATA  03  first_seq u64, (length u32, message)*
    KEEPER_DATA  04  after u64, (delta u32, length u32, message)*
    CHUNK        05  after u64, seq u64, offset u64, total u64, piece
    ACK          06  seq u64
    GAP          07  first u64, last u64, count u64, length u32, reason utf-8,
                     (length u32, notice)*
    BYE          08  reason u8, come_back u8, detail utf-8
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from .errors import FrameError
from .pieces import Buffer

STREAM_SUBPROTOCOL: Final = "v1.stream.holdfast"
VERSION: Final = 1
NO_EPOCH: Final = bytes(16)
#: An entry longer than this many bytes travels in CHUNK frames, so that control frames pass.
CHUNK_BYTES: Final = 256 * 1024

_RESUME: Final = struct.Struct("<BB16sQ16sQQQ")
_RESUMED: Final = struct.Struct("<BB16sQQQ")
_HEAD: Final = struct.Struct("<BQ")
_LENGTH: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<II")
_CHUNK: Final = struct.Struct("<BQQQQ")
_GAP: Final = struct.Struct("<BQQQI")
_BYE: Final = struct.Struct("<BBB")
_MAX_DELTA: Final = 0xFFFF_FFFF


class FrameType(IntEnum):
    RESUME = 1
    RESUMED = 2
    CLIENT_DATA = 3
    KEEPER_DATA = 4
    CHUNK = 5
    ACK = 6
    GAP = 7
    BYE = 8


class ByeReason(IntEnum):
    """Why a keeper ends a connection."""

    DRAIN = 1
    SUPERSEDED = 2
    GONE = 3
    EXPIRED = 4


@dataclass(frozen=True, slots=True)
class Resume:
    """A client's first frame: who it is, and what it has."""

    client_id: bytes
    attempt: int
    epoch: bytes = NO_EPOCH
    seq: int = 0
    offset: int = 0
    first_unacked: int = 0
    version: int = VERSION

    def encode(self) -> bytes:
        return _RESUME.pack(
            FrameType.RESUME, self.version, self.client_id, self.attempt, self.epoch,
            self.seq, self.offset, self.first_unacked,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resumed:
    """The keeper's answer: where the stream goes on in both directions."""

    epoch: bytes
    seq: int
    offset: int
    accepted: int
    version: int = VERSION

    def encode(self) -> bytes:
        return _RESUMED.pack(
            FrameType.RESUMED, self.version, self.epoch, self.seq, self.offset, self.accepted
        )


@dataclass(frozen=True, slots=True)
class ClientData:
    """Messages of a client, numbered ``first_seq``, ``first_seq + 1`` …"""

    first_seq: int
    messages: tuple[bytes, ...]

    def encode(self) -> bytes:
        parts: list[bytes] = [_HEAD.pack(FrameType.CLIENT_DATA, self.first_seq)]
        for message in self.messages:
            parts += (_LENGTH.pack(len(message)), message)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class KeeperData:
    """Log entries for one session: ``entries`` are (seq, message), all with seq > ``after``."""

    after: int
    entries: tuple[tuple[int, bytes], ...]

    def encode(self) -> bytes:
        return encode_keeper_data(self.after, self.entries)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one long entry: bytes ``offset`` … of ``total``, of entry ``seq``.

    After ``decode`` the piece is a view of what was decoded.
    """

    after: int
    seq: int
    offset: int
    total: int
    piece: Buffer

    def encode(self) -> bytes:
        head = encode_chunk_head(self.after, self.seq, self.offset, self.total)
        return b"".join((head, self.piece))


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything up to and with ``seq`` has arrived."""

    seq: int

    def encode(self) -> bytes:
        return _HEAD.pack(FrameType.ACK, self.seq)


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries ``first`` … ``last`` are lost for this session, and why.

    ``count``: how many of them were for it, 0 when nobody knows. ``notices``: messages (v1 framing)
    that say so in each cell that the gap touched, to be shown in its place.
    """

    first: int
    last: int
    count: int
    reason: str
    notices: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        reason = self.reason.encode()
        head = _GAP.pack(FrameType.GAP, self.first, self.last, self.count, len(reason))
        parts = [head, reason]
        for notice in self.notices:
            parts += (_LENGTH.pack(len(notice)), notice)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Bye:
    """The keeper ends this connection; ``come_back`` says whether another may follow."""

    reason: ByeReason
    come_back: bool
    detail: str = ""

    def encode(self) -> bytes:
        return _BYE.pack(FrameType.BYE, self.reason, self.come_back) + self.detail.encode()


Frame = Resume | Resumed | ClientData | KeeperData | Chunk | Ack | Gap | Bye


def encode_chunk_head(after: int, seq: int, offset: int, total: int) -> bytes:
    """What stands before the piece in a CHUNK frame: who writes both saves a copy."""
    return _CHUNK.pack(FrameType.CHUNK, after, seq, offset, total)


def encode_keeper_data(after: int, entries: Sequence[tuple[int, bytes]]) -> bytes:
    """A KEEPER_DATA frame from (seq, message) pairs in rising order."""
    parts: list[bytes] = [_HEAD.pack(FrameType.KEEPER_DATA, after)]
    previous = after
    for seq, message in entries:
        if not 0 < seq - previous <= _MAX_DELTA:
            raise ValueError(f"entry {seq} does not follow {previous}")
        parts += (_ENTRY.pack(seq - previous, len(message)), message)
        previous = seq
    return b"".join(parts)


def decode(data: Buffer) -> Frame:
    """Parse one frame. Raises FrameError with what is wrong; never anything else."""
    try:
        return _DECODERS[data[0]](data)
    except IndexError:
        raise FrameError("empty frame") from None
    except KeyError:
        raise FrameError(f"unknown frame type {data[0]}") from None
    except (struct.error, ValueError) as error:
        raise FrameError(f"frame of type {data[0]} is malformed: {error}") from error


def _decode_resume(data: Buffer) -> Resume:
    _, version, client_id, attempt, epoch, seq, offset, unacked = _RESUME.unpack(data)
    return Resume(client_id, attempt, epoch, seq, offset, unacked, version)


def _decode_resumed(data: Buffer) -> Resumed:
    _, version, epoch, seq, offset, accepted = _RESUMED.unpack(data)
    return Resumed(epoch, seq, offset, accepted, version)


def _decode_client_data(data: Buffer) -> ClientData:
    _, first_seq = _HEAD.unpack_from(data)
    messages = tuple(_lengths(memoryview(data), _HEAD.size))
    if not messages or first_seq < 1:
        raise FrameError("CLIENT_DATA carries no message, or seq 0")
    return ClientData(first_seq, messages)


def _lengths(view: memoryview, position: int) -> Iterator[bytes]:
    """The (length u32, bytes)* from ``position`` to the end. Raises FrameError."""
    while position < len(view):
        (length,) = _LENGTH.unpack_from(view, position)
        position += _LENGTH.size
        if position + length > len(view):
            raise FrameError("the frame ends inside a message")
        yield bytes(view[position : position + length])
        position += length


def _decode_keeper_data(data: Buffer) -> KeeperData:
    _, after = _HEAD.unpack_from(data)
    view, position, seq = memoryview(data), _HEAD.size, after
    entries: list[tuple[int, bytes]] = []
    while position < len(view):
        delta, length = _ENTRY.unpack_from(view, position)
        position += _ENTRY.size
        if delta == 0 or position + length > len(view):
            raise FrameError("KEEPER_DATA ends inside an entry, or repeats a seq")
        seq += delta
        entries.append((seq, bytes(view[position : position + length])))
        position += length
    if not entries:
        raise FrameError("KEEPER_DATA carries no entry")
    return KeeperData(after, tuple(entries))


def _decode_chunk(data: Buffer) -> Chunk:
    _, after, seq, offset, total = _CHUNK.unpack_from(data)
    piece = memoryview(data)[_CHUNK.size :]
    if seq <= after or not len(piece) or offset + len(piece) > total:
        raise FrameError("CHUNK is empty, out of order or longer than its entry")
    return Chunk(after, seq, offset, total, piece)


def _decode_ack(data: Buffer) -> Ack:
    return Ack(_HEAD.unpack(data)[1])


def _decode_gap(data: Buffer) -> Gap:
    _, first, last, count, length = _GAP.unpack_from(data)
    view, position = memoryview(data), _GAP.size + length
    if last < first or position > len(view):
        raise FrameError("GAP ends before it begins, or inside its reason")
    reason = bytes(view[_GAP.size : position]).decode()
    return Gap(first, last, count, reason, tuple(_lengths(view, position)))


def _decode_bye(data: Buffer) -> Bye:
    _, reason, come_back = _BYE.unpack_from(data)
    return Bye(ByeReason(reason), bool(come_back), bytes(data[_BYE.size :]).decode())


_DECODERS: Final[dict[int, Callable[[Buffer], Frame]]] = {
    FrameType.RESUME: _decode_resume,
    FrameType.RESUMED: _decode_resumed,
    FrameType.CLIENT_DATA: _decode_client_data,
    FrameType.KEEPER_DATA: _decode_keeper_data,
    FrameType.CHUNK: _decode_chunk,
    FrameType.ACK: _decode_ack,
    FrameType.GAP: _decode_gap,
    FrameType.BYE: _decode_bye,
}
