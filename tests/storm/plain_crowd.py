"""Many plain websockets in one process: ``python -m storm.plain_crowd``, told what to do like
``crowd``. No turns, no budget and no stream: each dials the next proxy as soon as its own is gone,
and again after a full-jitter second when that fails. This is what a crowd of browsers does, and
the ceiling for the notebooks: all that a dial costs the proxy and the keeper, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from typing import Any

import psutil

from holdfast_client_shim.gateway.upstream import DialFailed, Loss, Target, Upstream, dial
from holdfast_protocol.jupyter import V1_SUBPROTOCOL
from storm.lag import LagSampler

_DIAL_SECONDS = 10.0
_LOOK = 0.25


class PlainSocket:
    """One websocket that is kept up; ``opened`` is when it last came up (CLOCK_MONOTONIC)."""

    def __init__(self, urls: list[str], token: str, kernel_id: str, session_id: str) -> None:
        self._urls = urls
        self._headers = {"Authorization": f"token {token}"}
        self._path = f"/api/kernels/{kernel_id}/channels?session_id={session_id}"
        self._gone: asyncio.Future[Loss] | None = None
        self.opened: float | None = None
        self.gateway = ""
        self.refusals: list[str] = []
        self.task = asyncio.create_task(self._run())

    def __repr__(self) -> str:
        return f"<PlainSocket {'down' if self.opened is None else 'up'} at {self.gateway}>"

    def message_received(self, payload: memoryview, *, text: bool) -> None:
        """Idle kernels say little, and nobody counts it here."""

    def connection_gone(self, loss: Loss) -> None:
        self.opened = None
        if self._gone is not None:
            self._gone.set_result(loss)

    def may_write(self) -> None: ...

    async def _run(self) -> None:
        while True:
            upstream = await self._dial()
            self._gone = asyncio.get_running_loop().create_future()
            upstream.begin(self)
            self.opened = time.monotonic()
            await self._gone
            self._urls = [*self._urls[1:], self._urls[0]]

    async def _dial(self) -> Upstream:
        while True:
            self.gateway = self._urls[0]
            target = Target("ws" + self.gateway[4:] + self._path, self._headers, (V1_SUBPROTOCOL,))
            try:
                return await dial(target, timeout=_DIAL_SECONDS)
            except DialFailed as failure:
                if failure.status is not None:
                    self.refusals.append(str(failure))
                await asyncio.sleep(random.uniform(0.0, 1.0))


class PlainCrowd:
    """All of one process."""

    def __init__(self, urls: list[str], token: str) -> None:
        self._urls, self._token = urls, token
        self._sockets: list[PlainSocket] = []
        self._lag = LagSampler()
        self._lag.start()

    def __repr__(self) -> str:
        return f"<PlainCrowd of {len(self._sockets)}>"

    async def open(self, places: list[tuple[str, str]], seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        for kernel_id, session_id in places:
            self._sockets.append(PlainSocket(self._urls, self._token, kernel_id, session_id))
            if len(self._sockets) % 20 == 0:
                await self._until_up(0.0, deadline, look=0.02)
        return await self.back(0.0, deadline - time.monotonic())

    async def back(self, since: float, seconds: float) -> dict[str, Any]:
        await self._until_up(since, time.monotonic() + seconds, look=_LOOK)
        return self.report(since)

    def report(self, since: float) -> dict[str, Any]:
        ups = [socket.opened for socket in self._sockets if socket.opened is not None]
        process = psutil.Process()
        return {
            "back": [up - since for up in ups if up >= since],
            "count": len(self._sockets),
            "complaints": [text for socket in self._sockets for text in socket.refusals],
            "gateways": dict(Counter(socket.gateway for socket in self._sockets)),
            "rss": process.memory_info().rss,
            "cpu": sum(process.cpu_times()[:2]),
            "lag": self._lag.longest(since),
        }

    async def _until_up(self, since: float, deadline: float, *, look: float) -> None:
        while time.monotonic() < deadline:
            if all(s.opened is not None and s.opened >= since for s in self._sockets):
                return
            await asyncio.sleep(look)


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = json.loads(await reader.readline())
    crowd = PlainCrowd(first["urls"], first["token"])
    while line := await reader.readline():
        command = json.loads(line)
        answer = getattr(crowd, command.pop("do"))(**command)
        answer = await answer if asyncio.iscoroutine(answer) else answer
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
