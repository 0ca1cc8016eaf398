"""Every error that the protocol raises, in one tree.

    HoldfastError
    ├── LocalError       we were misused: a bug or a limit on this side
    │   ├── InvalidState     an event that the present state has no transition for
    │   └── SendBufferFull   the peer has not acknowledged; the sender must wait
    └── RemoteError      the peer sent what it must not: close, with the named code
        ├── FrameError       bytes that are not a frame, or not a Jupyter message
        ├── StreamError      a frame that does not fit the stream (skipped, ahead, behind)
        └── RecordError      a record in the store that we cannot read

Local misuse and a peer's misbehaviour are different types (the idea is h11's), because the
first must crash a test and the second must close one connection and nothing else.
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Websocket close codes that Holdfast sends (RFC 6455 section 7.4; 4000+ are private)."""

    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    #: "Service restart": makes JupyterLab and the shim come back at once. 1000 and 1001 never do.
    COME_BACK = 1012
    OVERLOAD = 1013
    BAD_FRAME = 4400
    ACK_AHEAD = 4401
    ACK_BACKWARD = 4402
    SEQ_SKIPPED = 4403
    POSITION = 4404
    GONE = 4410


class HoldfastError(Exception):
    """Base of all errors of the protocol package."""


class LocalError(HoldfastError):
    """This side was misused or is at a limit."""


class InvalidState(LocalError):
    """The state machine has no transition for this event in its present state."""


class SendBufferFull(LocalError):
    """More unacknowledged bytes than the bound allows; nothing was queued."""


class RemoteError(HoldfastError):
    """The peer misbehaved. ``close_code`` names how its connection is to be closed."""

    close_code: CloseCode = CloseCode.BAD_FRAME

    def __init__(self, message: str, close_code: CloseCode | None = None) -> None:
        super().__init__(message)
        if close_code is not None:
            self.close_code = close_code


class FrameError(RemoteError):
    """Bytes that are not a frame of ours, or not a Jupyter message."""


class StreamError(RemoteError):
    """A well-formed frame that does not fit the stream's state."""


class RecordError(RemoteError):
    """A record in the store that cannot be read; says which field and what to do."""
