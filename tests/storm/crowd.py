"""Many notebooks in one process, as one notebook server would hold them: the real shim without
browsers. ``python -m storm.crowd``; it takes commands as JSON lines and answers each with one.

Everything below the notebook is the product's: gateway client, dialer, streams. A notebook here
proves what it is given at once and keeps what a user would see of it.
"""

from __future__ import annotations

import asyncio
import collections
import cProfile
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import psutil

from holdfast_client_shim.server.client import HoldfastGatewayClient
from holdfast_client_shim.stream.kernel_stream import KernelStream
from holdfast_client_shim.stream.outbox import Item
from holdfast_client_shim.stream.status import StreamState
from holdfast_protocol.jupyter import Message, decode_v1, encode_v1
from storm.lag import LagSampler

#: States of a stream that a user would take for an error.
_BAD_STATES: Final = frozenset({StreamState.UNREACHABLE.value, StreamState.GONE.value})
_LOOK: Final = 0.25


class Book:
    """One notebook; ``texts`` are the lines of stdout that came, ``complaints`` what went wrong."""

    open = True

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.complaints: list[str] = []
        self.stream: KernelStream | None = None

    def __repr__(self) -> str:
        return f"<Book {len(self.texts)} lines, {len(self.complaints)} complaints>"

    def write(self, items: Sequence[Item]) -> bool:
        for item in items:
            self._see(decode_v1(item.message))
        assert self.stream is not None
        asyncio.get_running_loop().call_soon(self.stream.proven, items[-1].index)
        return True

    def close(self, code: int, reason: str) -> None:
        self.complaints.append(f"closed with {code}: {reason}")

    def _see(self, message: Message) -> None:
        kind, content = message.msg_type, message.content_dict()
        if kind == "stream" and content.get("name") == "stdout":
            self.texts.append(str(content.get("text")))
        elif kind == "stream" or kind == "error" or content.get("status") == "error":
            self.complaints.append(f"{kind}: {json.dumps(content)[:200]}")
        elif content.get("execution_state") in ("dead", "restarting"):
            self.complaints.append(f"status {content['execution_state']}")


class Crowd:
    """The notebooks of one notebook server."""

    def __init__(self, urls: list[str], token: str) -> None:
        self._client = HoldfastGatewayClient.instance(
            url=urls[0], gateway_urls=",".join(urls[1:]), auth_token=token
        )
        self._client.publish = self._published
        self._books: dict[str, Book] = {}
        self._streams: list[KernelStream] = []
        self._states: collections.Counter[str] = collections.Counter()
        self._bad: list[str] = []
        self._profile: cProfile.Profile | None = None
        self._lag = LagSampler()
        self._lag.start()

    def __repr__(self) -> str:
        return f"<Crowd of {len(self._streams)}>"

    async def open(self, places: list[tuple[str, str]], seconds: float) -> dict[str, Any]:
        """Open a notebook for each (kernel id, session id), a few at a time."""
        deadline = time.monotonic() + seconds
        for kernel_id, session_id in places:
            stream = self._client.streams.enter(kernel_id, session_id)
            book = self._books[session_id] = Book()
            book.stream = stream
            self._streams.append(stream)
            stream.attach(book)
            if len(self._streams) % 20 == 0 or len(self._streams) == len(places):
                while self._count(0.0) < len(self._streams) and time.monotonic() < deadline:  # noqa: ASYNC110 - as below
                    await asyncio.sleep(0.02)
        return self.report(0.0)

    async def back(self, since: float, seconds: float) -> dict[str, Any]:
        """Wait until all are connected since ``since`` (CLOCK_MONOTONIC), or for ``seconds``."""
        await self._until(lambda: self._count(since) == len(self._streams), seconds)
        return self.report(since)

    async def say(self, sessions: list[str], text: str) -> dict[str, Any]:
        """Each of these sessions lets its kernel print ``text``."""
        for session_id in sessions:
            stream = self._books[session_id].stream
            assert stream is not None
            stream.from_notebook(_execute(session_id, f"print({text!r})"))
        return {}

    async def heard(self, text: str, seconds: float) -> dict[str, Any]:
        """Wait until every notebook has this line once; how many have it how often."""
        line = text + "\n"
        await self._until(lambda: all(line in b.texts for b in self._books.values()), seconds)
        times = collections.Counter(b.texts.count(line) for b in self._books.values())
        complaints = [c for book in self._books.values() for c in book.complaints]
        return {"times": {str(n): books for n, books in times.items()}, "complaints": complaints}

    def report(self, since: float) -> dict[str, Any]:
        complaints = [c for book in self._books.values() for c in book.complaints]
        gateways = collections.Counter(s.monitor.status.gateway for s in self._streams)
        process = psutil.Process()
        return {
            "back": [
                status.since - since
                for stream in self._streams
                if (status := stream.monitor.status).state is StreamState.CONNECTED
                and status.since >= since
            ],
            "count": len(self._streams),
            "complaints": complaints + self._bad,
            "states": dict(self._states),
            "gateways": dict(gateways),
            "rss": process.memory_info().rss,
            "cpu": sum(process.cpu_times()[:2]),
            "lag": self._lag.longest(since),
        }

    def profile(self) -> dict[str, Any]:
        """Begin to profile this process, or end it: what took its time goes to HOLDFAST_PROFILE."""
        if self._profile is None:
            self._profile = cProfile.Profile()
            self._profile.enable()
        else:
            self._profile.disable()
            self._profile.dump_stats(f"{os.environ['HOLDFAST_PROFILE']}.crowd-{os.getpid()}")
            self._profile = None
        return {}

    def _count(self, since: float) -> int:
        return sum(
            (status := stream.monitor.status).state is StreamState.CONNECTED
            and status.since >= since
            for stream in self._streams
        )

    def _published(self, status: dict[str, Any]) -> None:
        self._states[status["state"]] += 1
        if status["state"] in _BAD_STATES:
            self._bad.append(f"{status['state']}: {status['reason']}")

    @staticmethod
    async def _until(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - streams have no event for it
            await asyncio.sleep(_LOOK)


def _execute(session_id: str, code: str) -> bytes:
    header = {
        "msg_id": os.urandom(16).hex(), "session": session_id, "username": "storm",
        "date": "2026-01-01T00:00:00.000000Z", "msg_type": "execute_request", "version": "5.3",
    }  # fmt: skip
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
    return encode_v1(Message("shell", *parts))


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = json.loads(await reader.readline())
    crowd = Crowd(first["urls"], first["token"])
    while line := await reader.readline():
        command = json.loads(line)
        name = command.pop("do")
        answer = getattr(crowd, name)(**command)
        if isinstance(answer, Awaitable):
            answer = await answer
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
