"""Takes new connections off the listening socket, a few in each turn of the event loop.

When a proxy dies, thousands of websockets come to the next one within milliseconds. An event
loop's own server accepts all that wait in one go, and then reads and answers them all in one
turn, while every open notebook waits (measured: 0.25 s of CPU time for 512). Taken a few at a
time, they wait in the kernel's queue instead, where they cost nothing. Must not know HTTP.

Rejected: a short listen backlog. Whom it turns away comes again after a second at the earliest.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final

import structlog

#: The kernel cuts it to net.core.somaxconn.
BACKLOG: Final = 4096
#: Connections taken in one turn of the loop.
AT_ONCE: Final = 16
#: How long to take none when the system has no room for one, in seconds.
PAUSE_SECONDS: Final = 0.25
TLS_SECONDS: Final = 10.0
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_log: Final = structlog.get_logger("holdfast.server")


class Acceptor:
    """``start`` it on the running loop; each connection gets a protocol of ``factory``.

    ``listening`` is bound and non-blocking; it is closed by ``stop``.
    """

    def __init__(
        self,
        listening: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listening = listening
        self._factory = factory
        self._tls = tls
        self._making: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._full = False

    def __repr__(self) -> str:
        state = "stopped" if self._listening.fileno() < 0 else "full" if self._full else "open"
        return f"<Acceptor {state}, {len(self._making)} being made>"

    def start(self) -> None:
        """Listen, and take connections from now on. Raises OSError when it cannot listen."""
        self._listening.listen(BACKLOG)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listening, self._take)

    def stop(self) -> None:
        """Close the listening socket: who comes is refused. Idempotent."""
        if self._listening.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._rest(error)
                    return
                continue  # this one was gone before it was taken (accept(2): ECONNABORTED …)
            self._full = False
            connection.setblocking(False)
            task = self._loop.create_task(self._make(connection))
            self._making.add(task)
            task.add_done_callback(self._making.discard)

    def _rest(self, error: OSError) -> None:
        """Without a pause the loop would turn as fast as it can until somebody leaves."""
        if not self._full:
            self._full = True
            _log.error("no connection can be taken now", error=str(error))
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(
            PAUSE_SECONDS, self._loop.add_reader, self._listening, self._take
        )

    async def _make(self, connection: socket.socket) -> None:
        options = {} if self._tls is None else {"ssl_handshake_timeout": TLS_SECONDS}
        try:
            await self._loop.connect_accepted_socket(
                self._factory, connection, ssl=self._tls, **options
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            # a port scanner, a plain client at a TLS port, one that left: theirs to know
            _log.debug("a connection did not come about", error=str(error))
            connection.close()
