"""What a ``ClientStream`` tells its owner, and what its owner may tell it of an earlier one."""

from __future__ import annotations

from dataclasses import dataclass

from ..frames import Bye


@dataclass(frozen=True, slots=True)
class Predecessor:
    """What an earlier client of the session, in a process that is gone, knew last of the stream:
    the log's ``epoch``, and up to where it had taken and used it."""

    epoch: bytes
    position: int


@dataclass(frozen=True, slots=True)
class StreamResumed:
    """The stream is live again. ``first``: this stream was never live before."""

    first: bool


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message from the kernel (v1 framing)."""

    seq: int
    message: bytes


@dataclass(frozen=True, slots=True)
class GapSeen:
    """Entries ``first`` … ``last`` are lost, and why; ``count`` of them were for this session, 0
    when nobody knows. ``notices``: messages (v1 framing) that say so in the cells that the gap
    touched. They are shown here and now: what follows may end those cells."""

    first: int
    last: int
    count: int
    reason: str
    notices: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class EpochChanged:
    """Another log began at the keeper; ``failed`` were not acknowledged and are not sent again."""

    failed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ByeReceived:
    """The keeper ends the connection; ``bye.come_back`` says whether to dial again."""

    bye: Bye


Event = StreamResumed | Delivered | GapSeen | EpochChanged | ByeReceived
