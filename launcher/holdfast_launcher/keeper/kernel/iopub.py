"""Drains a kernel's iopub in a thread of its own, and hands it to the loop in batches.

A PUB drops for a subscriber that does not read, so reading must not depend on the loop: ZMQ's
receive mark is off and this thread takes what comes, while the loop may be blocked. What waits
for the loop is bounded in bytes: at the bound the thread stops reading and gives ZMQ a receive
mark, so that back-pressure reaches the kernel; then *its* send mark matters (see ``highwater``).
One wake-up of the loop per batch, not per message.

Rejected: ``add_reader`` on the SUB: libzmq would queue without any bound while the loop is busy.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from .connection import Connection
from .sockets import connect_socket

#: Hand over at the latest after so many messages or bytes.
_BATCH: Final = 256
_BATCH_BYTES: Final = 4 * 1024 * 1024
#: The loop handles so many messages or bytes before others get their turn.
_SLICE: Final = 64
_SLICE_BYTES: Final = 2 * 1024 * 1024
#: ZMQ's receive mark once the byte bound was hit, in messages; even.
_THROTTLED_MARK: Final = 64

#: Topic, delimiter, signature and the four JSON parts; what follows are a message's buffers.
_PLAIN_PARTS: Final = 7

_Batch = deque[tuple[list[bytes], int]]


def receive_parts(socket: zmq.Socket[bytes]) -> list[bytes]:
    """One multipart message without waiting; binary buffers are views of what ZMQ received.

    They are copied once, into the message's v1 form, and not before: for bulk data each copy
    into fresh memory costs as much as the transport itself. Raises zmq.Again.
    """
    parts = [socket.recv(zmq.NOBLOCK)]
    while socket.getsockopt(zmq.RCVMORE):
        if len(parts) < _PLAIN_PARTS:
            parts.append(socket.recv())
        else:
            frame = socket.recv(copy=False)
            parts.append(cast("bytes", frame.buffer))  # read-only bytes in all but name
    return parts


class IopubDrain:
    """One SUB of one incarnation. Calls ``receive`` on the loop, in order."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        connection: Connection,
        receive: Callable[[list[bytes]], None],
        on_connected: Callable[[], None],
        *,
        bound: int,
    ) -> None:
        self._receive = receive
        self._on_connected = on_connected
        self._bound = bound
        self._loop = asyncio.get_running_loop()
        self._ready: _Batch = deque()
        self._room = threading.Condition()
        self._bytes = 0
        self._scheduled = False
        self._stopped = False
        self.throttled = False
        self._reads = 0
        self._settle_at = 0
        self.taken = 0
        #: Set when the kernel's end of the connection is gone and everything before was read.
        self.disconnected = asyncio.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._socket = connect_socket(context, zmq.SUB, connection)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(connection.url("iopub"))
        self._thread = threading.Thread(target=self._run, name="holdfast-iopub", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"IopubDrain({self.taken} taken, {self._bytes} bytes waiting)"

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    @property
    def idle(self) -> bool:
        """Nothing waits for the loop."""
        return not self._ready

    def close(self) -> None:
        """Stop the thread and close the socket. Idempotent."""
        if self._stopped:
            return
        with self._room:
            self._stopped = True
            self._room.notify_all()
        os.write(self._wake_write, b"x")
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._ready.clear()

    # -- the thread

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        try:
            while not self._stopped:
                events = dict(poller.poll())
                if self._socket in events:
                    self._drain()
                if self._monitor in events:
                    self._watch()
        except zmq.ZMQError as error:
            if error.errno not in (zmq.ETERM, zmq.ENOTSOCK):
                raise
        finally:
            if not self._socket.closed:  # a context that is destroyed closes its sockets
                self._socket.disable_monitor()
                self._monitor.close(linger=0)
                self._socket.close(linger=0)

    def _drain(self) -> None:
        socket = self._socket
        batch: list[tuple[list[bytes], int]] = []
        size = 0
        while not self._stopped:
            try:
                parts = receive_parts(socket)
            except zmq.Again:
                break
            self._reads += 1
            if self._reads == self._settle_at:
                self._socket.setsockopt(zmq.RCVHWM, _THROTTLED_MARK)
            length = sum(map(len, parts))
            batch.append((parts, length))
            size += length
            if len(batch) >= _BATCH or size >= _BATCH_BYTES:
                self._hand_over(batch, size)
                batch, size = [], 0
        if batch:
            self._hand_over(batch, size)

    def _hand_over(self, batch: list[tuple[list[bytes], int]], size: int) -> None:
        with self._room:
            self._ready.extend(batch)
            self._bytes += size
            wake, self._scheduled = not self._scheduled, True
            full = self._bytes > self._bound
        if wake:
            self._call(self._take)
        if full:
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        if not self.throttled:
            self._throttle()
        with self._room:
            self._room.wait_for(lambda: self._stopped or self._bytes <= self._bound // 2)

    def _throttle(self) -> None:
        """Give ZMQ a receive mark, once, without stalling the connection for ever.

        libzmq's writing end stops when ``written - reported >= mark``; the reading end reports
        its count only when that is a multiple of ``mark / 2``, and never while the mark is off.
        So at this moment nothing was reported, and with a small mark at once the writer would
        stop at a count whose multiples we have passed already: nobody would wake it. Therefore
        the first mark lies just above what we have read: reading reaches it, whatever is
        written, and reports it. At exactly that count nothing is unreported, and there a small
        mark is safe; from then on a multiple always lies between reported and written.
        """
        self.throttled = True
        self._settle_at = (self._reads + _THROTTLED_MARK) & ~1
        self._socket.setsockopt(zmq.RCVHWM, self._settle_at)

    def _watch(self) -> None:
        while True:
            try:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            except zmq.Again:
                return
            if event == zmq.EVENT_DISCONNECTED:
                # The engine has read to the end of the stream before it says so.
                self._drain()
                self._call(self.disconnected.set)
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._call(self._connected)

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            self._stopped = True  # the loop is closed: nobody is left to read for

    # -- the loop

    def _connected(self) -> None:
        if not self._stopped:
            self.disconnected.clear()
            self._on_connected()

    def _take(self) -> None:
        """Handle a slice; come back for the rest after the loop's other work."""
        ready, done, size = self._ready, 0, 0
        try:
            while ready and done < _SLICE and size < _SLICE_BYTES and not self._stopped:
                parts, length = ready.popleft()
                done += 1
                size += length
                self._receive(parts)
        finally:  # a receiver that raises loses its one message and stops nothing
            self.taken += done
            with self._room:
                self._bytes -= size
                self._scheduled = bool(ready) and not self._stopped
                if self._scheduled:
                    self._loop.call_soon(self._take)
                if self._bytes <= self._bound // 2:
                    self._room.notify()
