"""A TCP line that a fault makes slow, deaf, mute, or cuts in the middle of a frame.

Like `support.tcp_line`, which stalls and drops at exact moments; this one has weather: what it
does to bytes depends on its present ``Weather``, in each direction, for old and new connections.
It reads no protocol. Rejected: ``tc netem``, which many kernels do not have.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST


class Way(Enum):
    """``UP``: from the client to the server."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Seconds that each piece waits, bytes a second (0: no limit), ways on which nothing moves."""

    delay: float = 0.0
    rate: float = 0.0
    held: frozenset[Way] = frozenset()


FAIR = Weather()


class FaultLine:
    """Forwards ``self.port`` of ``hosts`` to ``target_port`` on loopback. One event loop."""

    def __init__(self, target_port: int, *, port: int = 0, hosts: tuple[str, ...] = ()) -> None:
        self.port = port
        self._target_port = target_port
        self._hosts = ("127.0.0.1", *hosts)
        self._servers: list[asyncio.Server] = []
        self._links: set[_Link] = set()
        self._weather = FAIR
        self._changed = asyncio.Event()
        self._cuts: set[Way] = set()

    def __repr__(self) -> str:
        return f"<FaultLine {self.port} to {self._target_port} {self._weather} {len(self._links)}>"

    @property
    def weather(self) -> Weather:
        return self._weather

    @weather.setter
    def weather(self, weather: Weather) -> None:
        self._weather = weather
        self._changed.set()
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Accept connections. Raises OSError when the port is taken."""
        for host in self._hosts:
            server = await asyncio.start_server(self._serve, host, self.port)
            self._servers.append(server)
            self.port = server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse new connections and reset the present ones. Idempotent."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        links = list(self._links)
        self.reset()
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)

    def reset(self) -> int:
        """RST to both ends of every connection; how many there were."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def cut_next(self, way: Way) -> None:
        """Each present connection ends after half of the next piece that goes this way."""
        for link in self._links:
            link.cut = way

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(task, writer)
        self._links.add(link)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
            link.server = back
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(link, reader, back, Way.UP))
                group.create_task(self._pump(link, there, writer, Way.DOWN))
        except* (OSError, _Ended):
            pass
        except* asyncio.CancelledError:
            pass  # by reset, the only one who has this task
        finally:
            self._links.discard(link)
            link.abort()

    async def _pump(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Way
    ) -> None:
        while data := await source.read(65536):
            await self._wait(way, len(data))
            if link.cut is way:
                sink.write(data[: (len(data) + 1) // 2])
                await sink.drain()
                raise _Ended
            sink.write(data)
            await sink.drain()
        raise _Ended

    async def _wait(self, way: Way, size: int) -> None:
        """As long as the weather has it; a change of weather is heeded at once."""
        while way in self._weather.held:
            await self._changed.wait()
        seconds = self._weather.delay
        if self._weather.rate:
            seconds += size / self._weather.rate
        if seconds:
            changed = self._changed
            try:
                async with asyncio.timeout(seconds):
                    await changed.wait()
            except TimeoutError:
                return


class _Link:
    """One connection's two ends."""

    def __init__(self, task: asyncio.Task[None], client: asyncio.StreamWriter) -> None:
        self.task = task
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.cut: Way | None = None

    def reset(self) -> None:
        for end in self._ends():
            found = end.get_extra_info("socket")
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.task.cancel()

    def abort(self) -> None:
        for end in self._ends():
            end.transport.abort()

    def _ends(self) -> list[asyncio.StreamWriter]:
        return [self.client] if self.server is None else [self.client, self.server]


class _Ended(Exception):
    """One side closed, or the line was cut."""
