"""Websocket frames as a server writes them (RFC 6455, section 5.2): unmasked, unfragmented.

aiohttp writes one frame per call and one transport write each; a burst to a plain client is
one frame per message, so the keeper makes its own frame heads and writes a batch at once. Pure.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

_SHORT: Final = struct.Struct(">BB")
_MEDIUM: Final = struct.Struct(">BBH")
_LONG: Final = struct.Struct(">BBQ")
_FIN: Final = 0x80
#: Control frame payloads are at most this long (RFC 6455, 5.5).
MAX_CONTROL: Final = 125


class Opcode(IntEnum):
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


def frame_head(opcode: Opcode, length: int) -> bytes:
    """The head of a final, unmasked frame with a payload of ``length`` bytes."""
    if length < 126:
        return _SHORT.pack(_FIN | opcode, length)
    if length < 65536:
        return _MEDIUM.pack(_FIN | opcode, 126, length)
    return _LONG.pack(_FIN | opcode, 127, length)
