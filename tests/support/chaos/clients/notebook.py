"""A notebook behind the shim: its websocket ends at a Jupyter Server, which nothing here hits.

Whatever happens to proxies, each of its cells must end, so waiting too long is an event of its
own. It starts another kernel when its own was deleted, or died.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import aiohttp

from support.chaos.history import Closed, Recorder, Stuck

from .book import Book, open_socket
from .rest import call
from .work import Work, draw_work

#: Longer than the longest outage and everything that follows from it.
PATIENCE = 90.0


class Notebook:
    """Runs cells until ``stop`` is set; ``server`` is the URL of its Jupyter Server."""

    def __init__(
        self,
        recorder: Recorder,
        server: str,
        token: str,
        side: Path,
        *,
        name: str,
        seed: int,
        stop: asyncio.Event,
    ) -> None:
        self.name = name
        self._recorder = recorder
        self._server = server
        self._side = side
        self._draw = random.Random(f"{seed} {name}")
        self._stop = stop
        self._headers = {"Authorization": f"token {token}"}
        self.book: Book | None = None

    def __repr__(self) -> str:
        return f"<Notebook {self.name} {self.book}>"

    async def run(self) -> None:
        """Kernel after kernel."""
        async with aiohttp.ClientSession(headers=self._headers) as http:
            while not self._stop.is_set():
                kernel = await self._start(http)
                if kernel:
                    self.book = Book(self._recorder, "shim", kernel)
                    await self._work(http, self.book)

    async def _start(self, http: aiohttp.ClientSession) -> str:
        answer = await call(
            self._recorder, http, self._server, "start", client="shim", seconds=PATIENCE
        )
        if answer.status == 201:
            return str(answer.body["id"])
        await asyncio.sleep(0.5)
        return ""

    async def _work(self, http: aiohttp.ClientSession, book: Book) -> None:
        try:
            socket = await open_socket(http, self._server, book)
        except (aiohttp.ClientError, OSError):
            return
        book.opened()
        reader = asyncio.create_task(self._read(socket, book))
        try:
            while not self._stop.is_set() and not reader.done():
                if not await self._batch(http, socket, book, reader):
                    return
        except ConnectionError:
            return  # the server closed it: the kernel is gone, and it has said so
        finally:
            await socket.close()
            await asyncio.wait([reader], timeout=10)
            reader.cancel()

    async def _batch(
        self,
        http: aiohttp.ClientSession,
        socket: aiohttp.ClientWebSocketResponse,
        book: Book,
        reader: asyncio.Task[None],
    ) -> bool:
        """Some cells and perhaps something that happens to them; False: another kernel now."""
        work = draw_work(self._draw)
        for lines, width, interval in work.cells:
            cell = book.next_cell(lines=lines, width=width, interval=interval)
            await book.send_cell(socket, cell, cell.code(self._side, book.kernel))
        if work.act is not None:
            await asyncio.sleep(work.after)
            await self._act(http, book, work)
        deleted = work.act == "delete"
        await self._wait_done(book, reader, 5.0 if deleted else PATIENCE)
        return not deleted and not book.pending

    async def _act(self, http: aiohttp.ClientSession, book: Book, work: Work) -> None:
        assert work.act is not None
        await call(
            self._recorder,
            http,
            self._server,
            work.act,
            client="shim",
            kernel=book.kernel,
            seconds=PATIENCE,
        )

    async def _wait_done(self, book: Book, reader: asyncio.Task[None], seconds: float) -> None:
        deadline = self._recorder.now() + seconds
        while book.pending and not reader.done():
            book.changed.clear()
            try:
                async with asyncio.timeout(0.5):
                    await book.changed.wait()
            except TimeoutError:
                if self._recorder.now() > deadline:
                    self._give_up(book, seconds)
                    return

    def _give_up(self, book: Book, seconds: float) -> None:
        if seconds < PATIENCE:
            return  # a deleted kernel's cells need no end
        for pending in book.pending.values():
            now = self._recorder.now()
            self._recorder.write(
                Stuck(at=now, session=book.session, cell=pending.number, seconds=seconds)
            )

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, book: Book) -> None:
        async for frame in socket:
            if frame.type is aiohttp.WSMsgType.BINARY:
                book.take(frame.data)
        code = socket.close_code or 0
        self._recorder.write(Closed(at=self._recorder.now(), session=book.session, code=code))
