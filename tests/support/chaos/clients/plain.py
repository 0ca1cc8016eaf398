"""A plain websocket client of the proxies, which comes back with the same ``session_id``.

It does what docs/howto/plain-clients.md asks of one: answers pings, comes back at once on every
close but 1000, goes to the next proxy when one does not answer, drops messages that it has seen.
After a reconnect it asks the kernel something: a cell that has no reply when that is answered
never arrived, and it says so instead of waiting.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp

from support.chaos.history import Answered, Called, Closed, Recorder, Stuck, Unsent

from .book import Book, open_socket
from .notebook import PATIENCE
from .rest import call
from .work import draw_work

_DIAL_SECONDS = 3.0
#: A proxy that says nothing for so long is left.
_HEARTBEAT = 2.0
_LONGEST_PAUSE = 1.0


class PlainClient:
    """Runs cells until ``stop`` is set; ``proxies`` are URLs, tried in turn."""

    def __init__(
        self,
        recorder: Recorder,
        proxies: Sequence[str],
        token: str,
        side: Path,
        *,
        name: str,
        seed: int,
        stop: asyncio.Event,
    ) -> None:
        self.name = name
        self._recorder = recorder
        self._proxies = list(proxies)
        self._headers = {"Authorization": f"token {token}"}
        self._side = side
        self._draw = random.Random(f"{seed} {name}")
        self._stop = stop
        self._at = self._draw.randrange(len(self._proxies))
        self.book: Book | None = None
        #: Which proxy carries it now; -1: none.
        self.carrier = -1

    def __repr__(self) -> str:
        return f"<PlainClient {self.name} at {self.carrier} {self.book}>"

    async def run(self) -> None:
        """Kernel after kernel."""
        async with aiohttp.ClientSession(headers=self._headers) as http:
            while not self._stop.is_set():
                kernel = await self._start(http)
                if kernel:
                    self.book = Book(self._recorder, "plain", kernel)
                    await self._live(http, self.book)

    async def _start(self, http: aiohttp.ClientSession) -> str:
        """Ask with one id until somebody says that it is there."""
        kernel = str(uuid.uuid4())
        while True:
            url = self._proxies[self._at]
            answer = await call(
                self._recorder, http, url, "start", client="plain", kernel=kernel, seconds=60
            )
            if answer.status == 201:
                return kernel
            if self._stop.is_set():
                # It may be there all the same; it is ended, so that nobody has to guess.
                await self._delete(http, kernel)
                return ""
            await self._next()

    async def _live(self, http: aiohttp.ClientSession, book: Book) -> None:
        """Connection after connection with one session, until the kernel is gone."""
        pause = 0.0
        while not self._stop.is_set() or book.pending:
            socket = await self._dial(http, book)
            if socket is None:
                pause = min(_LONGEST_PAUSE, pause * 2 or 0.05)
                await asyncio.sleep(self._draw.uniform(0, pause))
                await self._next()
                continue
            pause = 0.0
            reader = asyncio.create_task(self._read(socket, book))
            try:
                over = await self._work(http, socket, book, reader)
            except (ConnectionError, aiohttp.ClientError):
                over = False
            finally:
                with suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with asyncio.timeout(2):
                        await socket.close()
                self.carrier = -1
                reader.cancel()
                await asyncio.wait([reader])
            if over or socket.close_code == 1000:
                return

    async def _dial(
        self, http: aiohttp.ClientSession, book: Book
    ) -> aiohttp.ClientWebSocketResponse | None:
        number, now = self._recorder.next_call(), self._recorder.now()
        at = self._at
        self._recorder.write(
            Called(at=now, call=number, client="plain", action="open", kernel=book.kernel)
        )
        status, detail, socket = 0, "", None
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                socket = await open_socket(http, self._proxies[at], book, heartbeat=_HEARTBEAT)
            status = 101
        except aiohttp.WSServerHandshakeError as error:
            status, detail = error.status, error.message
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            detail = type(error).__name__
        now = self._recorder.now()
        self._recorder.write(Answered(at=now, call=number, status=status, detail=detail))
        if socket is not None:
            self.carrier = at
            book.opened(at)
        return socket

    async def _work(
        self,
        http: aiohttp.ClientSession,
        socket: aiohttp.ClientWebSocketResponse,
        book: Book,
        reader: asyncio.Task[None],
    ) -> bool:
        """Until the connection ends (False), or the kernel was deleted or we stop (True)."""
        if not await self._catch_up(socket, book, reader):
            return False
        while not self._stop.is_set():
            work = draw_work(self._draw)
            for lines, width, interval in work.cells:
                cell = book.next_cell(lines=lines, width=width, interval=interval)
                await book.send_cell(socket, cell, cell.code(self._side, book.kernel))
            if work.act == "delete":
                await self._delete(http, book.kernel)
                return True
            if work.act is not None:
                await asyncio.sleep(work.after)
                await call(
                    self._recorder,
                    http,
                    self._proxies[self._at],
                    work.act,
                    client="plain",
                    kernel=book.kernel,
                )
            if not await self._until(lambda: not book.pending, book, reader):
                return self._stuck(book, reader)
        return True

    async def _catch_up(
        self, socket: aiohttp.ClientWebSocketResponse, book: Book, reader: asyncio.Task[None]
    ) -> bool:
        """What was under way when the connection broke: it comes, or it never arrived."""
        if not book.pending:
            return True
        await book.send_probe(socket)
        if not await self._until(lambda: not book.probe, book, reader):
            return self._stuck(book, reader)
        lost = {key: cell for key, cell in book.pending.items() if not cell.replied}
        for key, cell in lost.items():
            del book.pending[key]
            now = self._recorder.now()
            self._recorder.write(Unsent(at=now, session=book.session, cell=cell.number))
        return await self._until(lambda: not book.pending, book, reader)

    def _stuck(self, book: Book, reader: asyncio.Task[None]) -> bool:
        if reader.done():
            return False
        for pending in book.pending.values():
            now = self._recorder.now()
            self._recorder.write(
                Stuck(at=now, session=book.session, cell=pending.number, seconds=PATIENCE)
            )
        book.pending.clear()
        return True

    async def _until(self, condition: object, book: Book, reader: asyncio.Task[None]) -> bool:
        """Wait for it; False when the connection ends before, or after ``PATIENCE``."""
        assert callable(condition)
        deadline = self._recorder.now() + PATIENCE
        while not condition():
            if reader.done() or self._recorder.now() > deadline:
                return False
            book.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await book.changed.wait()
        return True

    async def _delete(self, http: aiohttp.ClientSession, kernel: str) -> None:
        """Ask until it is said to be gone."""
        while True:
            url = self._proxies[self._at]
            answer = await call(
                self._recorder, http, url, "delete", client="plain", kernel=kernel, seconds=30
            )
            if answer.status in (204, 404):
                return
            await asyncio.sleep(0.3)
            await self._next()

    async def _next(self) -> None:
        self._at = (self._at + 1) % len(self._proxies)
        await asyncio.sleep(0)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, book: Book) -> None:
        async for frame in socket:
            if frame.type is aiohttp.WSMsgType.BINARY:
                book.take(frame.data)
        code = socket.close_code or 0
        now = self._recorder.now()
        self._recorder.write(Closed(at=now, session=book.session, code=code))
        book.changed.set()
