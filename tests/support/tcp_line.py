"""A TCP line between a client and a server that a test can cut, stall or make deaf.

For failures whose moment must be exact, such as an answer lost after the request was applied.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class TcpLine:
    """Forwards ``self.port`` on loopback to ``target_port``."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()
        self._answers.set()
        self.swallowed = asyncio.Event()

    def __repr__(self) -> str:
        state = "open" if self._server is not None else "cut"
        return f"<TcpLine {self.port} to {self._target_port} {state} {len(self._connections)}>"

    async def open(self) -> None:
        """Accept connections, on the same port as before."""
        assert self._server is None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse new connections and end the present ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.drop()

    async def drop(self) -> None:
        """End the present connections; new ones are accepted."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def aim(self, target_port: int) -> None:
        """Lead new connections to another server."""
        self._target_port = target_port

    def hold_answers(self) -> None:
        """From now on nothing goes from the server to the client; ``swallowed`` is set when
        there was something."""
        self._answers.clear()
        self.swallowed.clear()

    def release_answers(self) -> None:
        self._answers.set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            self._connections.discard(task)
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, back, answers=False))
                group.create_task(self._forward(there, writer, answers=True))
        except* (OSError, _Ended, asyncio.CancelledError):
            pass  # cancelled by ``drop``, the only one who has this task
        finally:
            self._connections.discard(task)
            for end in (writer, back):
                end.transport.abort()

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await source.read(65536):
            if answers and not self._answers.is_set():
                self.swallowed.set()
                await self._answers.wait()
            sink.write(data)
            await sink.drain()
        raise _Ended


class _Ended(Exception):
    """One side closed."""
