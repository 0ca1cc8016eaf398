"""Moving bytes between two transports until both are gone.

The pump parses nothing and keeps nothing: what one transport reads is written to the other in the
same callback. It must not know HTTP, websockets or who the ends are.

Invariants:

- *Bounded*: at most ``HIGH_WATER`` bytes plus one read wait in either direction, because a
  transport whose write buffer is above it pauses the other one's reading.
- *Ends are told at once*: when a leg ends, the other one is ended in the same callback: by a
  half-close behind the bytes already taken (an orderly end must not destroy a close frame that
  is on its way), by an abort when the leg broke.
- *A buffer is written into only when no transport refers to it*: see ``ReadBuffer``.

Rejected: ``asyncio.Protocol.data_received`` (one more copy, 2.4 times the CPU under TLS), and
tasks that read and write streams (a task switch for each read).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Final

READ_BYTES: Final = 256 * 1024
HIGH_WATER: Final = 512 * 1024
LOW_WATER: Final = 128 * 1024
#: How long an end that was told of the other's orderly end has to follow, in seconds.
LINGER_SECONDS: Final = 5.0


class ReadBuffer:
    """The memory that all legs of one event loop read into.

    One is enough for any number of tunnels: a transport asks for it, fills it and hands it over
    within one callback. It is given to ``write`` without a copy; if the receiving transport could
    not take all of it at once it now refers to this memory, which is then left to it and replaced.
    """

    def __init__(self, size: int = READ_BYTES) -> None:
        self._size = size
        self.view = memoryview(bytearray(size))

    def __repr__(self) -> str:
        return f"<ReadBuffer {self._size} bytes>"

    def replace(self) -> None:
        self.view = memoryview(bytearray(self._size))


class Ending(Enum):
    """How a leg came to its end."""

    ORDERLY = "end of stream"
    BROKEN = "connection broken"


class Leg(asyncio.BufferedProtocol):
    """One side of a tunnel: what its transport reads is written to ``peer``."""

    def __init__(
        self,
        name: str,
        transport: asyncio.Transport,
        peer: asyncio.Transport,
        tunnel: Tunnel,
        buffer: ReadBuffer,
    ) -> None:
        self.name = name
        self.transport = transport
        self.ended: Ending | None = None
        self.lost = False
        self.bytes_read = 0
        self._peer = peer
        self._tunnel = tunnel
        self._buffer = buffer

    def __repr__(self) -> str:
        state = self.ended.value if self.ended is not None else "open"
        return f"<Leg {self.name} {state}, {self.bytes_read} bytes read>"

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.view

    def buffer_updated(self, nbytes: int) -> None:
        self.bytes_read += nbytes
        peer = self._peer
        if peer.is_closing():
            return
        piece = self._buffer.view[:nbytes]
        if peer.get_write_buffer_size():
            peer.write(bytes(piece))  # it waits behind others, and the buffer is needed again
            return
        peer.write(piece)
        if peer.get_write_buffer_size():
            self._buffer.replace()

    def pause_writing(self) -> None:
        if not self._peer.is_closing():
            self._peer.pause_reading()

    def resume_writing(self) -> None:
        if not self._peer.is_closing():
            self._peer.resume_reading()

    def eof_received(self) -> bool:
        self.ended = Ending.ORDERLY
        self._tunnel.leg_ended(self)
        # TLS cannot be half open: there False lets the transport close itself.
        return self.transport.can_write_eof() and not self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.ended is None:
            # No end of stream came before: a reset, a timeout, or an abort of our own.
            self.ended = Ending.BROKEN
        self._tunnel.leg_lost(self, exc)


class Tunnel:
    """Two legs and how they end together. ``closed`` is done when both transports are gone.

    ``on_client_lost`` takes the exception with which the client's transport was lost, so that
    the server which accepted it can put its books in order.
    """

    def __init__(
        self,
        client: asyncio.Transport,
        keeper: asyncio.Transport,
        buffer: ReadBuffer,
        *,
        on_client_lost: Callable[[Exception | None], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._linger: asyncio.TimerHandle | None = None
        self._on_client_lost = on_client_lost
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.client = Leg("client", client, keeper, self, buffer)
        self.keeper = Leg("keeper", keeper, client, self, buffer)

    def __repr__(self) -> str:
        return f"<Tunnel {self.client!r} {self.keeper!r}>"

    def start(self, *, to_keeper: bytes = b"", to_client: bytes = b"") -> None:
        """Take both transports and pass on what each side had said already.

        Call in one turn of the loop with the check that neither transport is closing.
        """
        for leg in (self.client, self.keeper):
            # uvloop picks its read callback by the protocol's kind when reading begins.
            leg.transport.pause_reading()
            leg.transport.set_protocol(leg)
        for leg in (self.client, self.keeper):
            leg.transport.resume_reading()
            leg.transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        if to_keeper:
            self.keeper.transport.write(to_keeper)
        if to_client:
            self.client.transport.write(to_client)

    def abort(self) -> None:
        """End both legs at once; unsent bytes are dropped. Idempotent."""
        for leg in (self.client, self.keeper):
            if not leg.lost:
                leg.transport.abort()

    def leg_ended(self, leg: Leg) -> None:
        """An end of stream: behind the bytes already taken, the other side is told the same."""
        other = self._other(leg)
        if other.ended is not None:
            leg.transport.close()
            other.transport.close()
            return
        if not other.transport.is_closing():
            if other.transport.can_write_eof():
                other.transport.write_eof()
            else:
                other.transport.close()
        self._linger = self._loop.call_later(LINGER_SECONDS, self.abort)

    def leg_lost(self, leg: Leg, exc: Exception | None) -> None:
        """A transport is gone. If it broke, the other one is aborted in this very turn."""
        other = self._other(leg)
        if leg is self.client:
            self._on_client_lost(exc)
        if other.lost:
            if self._linger is not None:
                self._linger.cancel()
            if not self.closed.done():
                self.closed.set_result(None)
        elif leg.ended is Ending.BROKEN:
            other.transport.abort()

    def _other(self, leg: Leg) -> Leg:
        return self.keeper if leg is self.client else self.client
