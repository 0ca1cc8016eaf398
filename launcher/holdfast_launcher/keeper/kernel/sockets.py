"""A session's DEALER sockets to one kernel incarnation, on the loop, without a thread.

It knows ZMQ and the loop's ``add_reader``, and nothing of what a message means. ZMQ's file
descriptor is edge-triggered: it says "something changed", once, so after every wake-up *and*
every send the socket's events are looked at until nothing is left (libzmq, ``ZMQ_FD``).

Each channel has a queue of its own in front of a small ZMQ one, so a kernel that does not read
shell holds up neither control nor stdin, and what waits is bounded in bytes (ZMQ counts only
messages). Rejected: zmq.asyncio, which costs a future and two loop turns per message.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

from holdfast_protocol.errors import SendBufferFull
from holdfast_protocol.pieces import Buffer

from .connection import Connection

#: Messages that ZMQ itself may hold for a channel; the rest waits in our bounded queue.
_ZMQ_QUEUE: Final = 64
#: Messages read from one socket before the loop gets its turn.
_READ_BATCH: Final = 200
#: Parts longer than this are handed to ZMQ without a copy.
_COPY_BYTES: Final = 64 * 1024
#: How long shell waits for stdin's connection, in seconds, before it goes without.
_STDIN_WAIT: Final = 1.0
#: ZMQ tries again to connect so often, in milliseconds, while the kernel is starting.
RECONNECT_MS: Final = 20

Receive = Callable[[str, list[bytes]], None]


def connect_socket(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, connection: Connection
) -> zmq.Socket[bytes]:
    """A socket with the options that all of ours share, not yet connected."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    if connection.curve_public is not None and connection.curve_secret is not None:
        socket.curve_serverkey = connection.curve_public
        socket.curve_publickey = connection.curve_public
        socket.curve_secretkey = connection.curve_secret
    return socket


class Channel:
    """One DEALER: sends in order, never blocks, and passes on what comes."""

    def __init__(
        self,
        name: str,
        socket: zmq.Socket[bytes],
        receive: Receive,
        *,
        bound: int,
        on_writable: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._socket = socket
        self._receive = receive
        self._bound = bound
        self._on_writable = on_writable
        self._queue: deque[list[Buffer]] = deque()
        self._queued_bytes = 0
        self._held = False
        self._again = False
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self.turn)

    def __repr__(self) -> str:
        return f"Channel({self.name}, {len(self._queue)} queued, {self._queued_bytes} bytes)"

    def hold(self) -> None:
        """Queue what is sent until ``release``."""
        self._held = True

    def release(self) -> None:
        if self._held and not self._socket.closed:
            self._held = False
            self.turn()

    @property
    def connected(self) -> bool:
        return bool(self._events() & zmq.POLLOUT)

    def send(self, parts: list[Buffer]) -> None:
        """Queue or send one multipart message. Raises SendBufferFull, then nothing was queued.

        One message of any size is taken when nothing waits, otherwise it could never be sent.
        """
        if not self._queue and not self._held and self._try_send(parts):
            self._look_again()
            return
        size = sum(map(len, parts))
        if self._queue and self._queued_bytes + size > self._bound:
            raise SendBufferFull(
                f"the kernel has {self._queued_bytes} bytes unread on {self.name}; "
                "wait until it takes some, or interrupt it"
            )
        self._queue.append(parts)
        self._queued_bytes += size
        self._look_again()

    def discard(self) -> None:
        """Forget what waits here. What ZMQ already took may still arrive."""
        self._queue.clear()
        self._queued_bytes = 0

    def close(self) -> None:
        """Idempotent."""
        if not self._socket.closed:
            self._loop.remove_reader(self._fd)
            self._socket.close(linger=0)
        self.discard()

    def turn(self) -> int:
        """Send what can be sent, read what is there; the number of messages read."""
        self._again = False
        count = 0
        while not self._socket.closed:
            events = self._events()
            if events & zmq.POLLOUT:
                if self._on_writable is not None:
                    callback, self._on_writable = self._on_writable, None
                    callback()
                self._flush()
            if not events & zmq.POLLIN:
                break
            if count >= _READ_BATCH:
                self._look_again()
                break
            count += self._read()
        return count

    def _read(self) -> int:
        for count in range(_READ_BATCH):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return count
            try:
                self._receive(self.name, parts)
            except BaseException:
                self._look_again()  # a receiver that raises must not cost the rest its wake-up
                raise
            if self._socket.closed:  # the receiver ended this incarnation
                return count + 1
        return _READ_BATCH

    def _flush(self) -> None:
        while self._queue and not self._held and self._try_send(self._queue[0]):
            self._queued_bytes -= sum(map(len, self._queue.popleft()))

    def _try_send(self, parts: list[Buffer]) -> bool:
        copy = all(len(part) < _COPY_BYTES for part in parts)
        try:
            # libzmq takes all parts of a message or none when its queue is full (the high-water
            # mark is looked at before a first part only), so no half message can be left.
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=copy)
        except zmq.Again:
            return False
        return True

    def _events(self) -> int:
        return 0 if self._socket.closed else int(self._socket.getsockopt(zmq.EVENTS))

    def _look_again(self) -> None:
        """Our own use of the socket may have eaten its wake-up."""
        if not self._again and not self._socket.closed:
            self._again = True
            self._loop.call_soon(self.turn)


class SessionSockets:
    """Shell, control and stdin of one session, with one identity, for one incarnation.

    The kernel sends ``input_request`` to the identity of the execute request, and a ROUTER
    drops what it has no connection for. So stdin connects first and shell waits for it.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        connection: Connection,
        receive: Receive,
        *,
        bound: int,
    ) -> None:
        # A fresh identity: a session that comes again must not get answers to its forerunner.
        self._identity = os.urandom(12).hex().encode()
        self._channels: dict[str, Channel] = {}
        for name in ("stdin", "control", "shell"):
            socket = connect_socket(context, zmq.DEALER, connection)
            socket.setsockopt(zmq.SNDHWM, _ZMQ_QUEUE)
            socket.setsockopt(zmq.IDENTITY, self._identity)
            if name == "stdin":
                socket.setsockopt(zmq.IMMEDIATE, 1)  # writable means connected
            socket.connect(connection.url(name))
            self._channels[name] = Channel(
                name,
                socket,
                receive,
                bound=bound,
                on_writable=self._release if name == "stdin" else None,
            )
        self._timer: asyncio.TimerHandle | None = None
        if not self._channels["stdin"].connected:
            self._channels["shell"].hold()
            self._timer = asyncio.get_running_loop().call_later(_STDIN_WAIT, self._release)
        self.unanswered = 0

    def __repr__(self) -> str:
        return f"SessionSockets({list(self._channels.values())}, {self.unanswered} unanswered)"

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        shell = self._channels.get("shell")
        if shell is not None:
            shell.release()

    def send(self, channel: str, parts: list[Buffer]) -> None:
        """Raises SendBufferFull, or KeyError for a channel that clients cannot write to."""
        self._channels[channel].send(parts)
        if channel != "stdin":
            self.unanswered += 1

    def turn(self) -> int:
        """Read what is there; the number of messages."""
        return sum(channel.turn() for channel in list(self._channels.values()))

    def discard(self) -> None:
        for channel in self._channels.values():
            channel.discard()

    def close(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for channel in self._channels.values():
            channel.close()
