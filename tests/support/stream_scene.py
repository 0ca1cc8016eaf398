"""One stream, a notebook and fake gateways in one process, with every status that goes out."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from holdfast_client_shim.gateway.dialer import Dialer
from holdfast_client_shim.gateway.endpoints import Endpoint, EndpointPool
from holdfast_client_shim.gateway.upstream import Target
from holdfast_client_shim.stream.board import StatusBoard
from holdfast_client_shim.stream.kernel_stream import KernelStream
from holdfast_client_shim.stream.monitor import StreamMonitor
from holdfast_client_shim.stream.outbox import Item
from holdfast_client_shim.stream.record import StreamRecord
from holdfast_protocol.frames import STREAM_SUBPROTOCOL
from holdfast_protocol.jupyter import V1_SUBPROTOCOL, Message, decode_v1, encode_v1
from support.fake_stream_keeper import FakeGateway, FakeKernel

LOG = logging.getLogger("test")


class Book:
    """A notebook that proves what it gets at once, unless it is told to be slow."""

    def __init__(self, stream: KernelStream, *, proves: bool = True) -> None:
        self.stream = stream
        self.proves = proves
        self.open = True
        self.messages: list[Message] = []
        self.items: list[Item] = []
        self.closed: tuple[int, str] | None = None
        self._changed = asyncio.Event()

    def write(self, items: Sequence[Item]) -> bool:
        self.items += items
        self.messages += [decode_v1(item.message) for item in items]
        self._changed.set()
        if self.proves and items:
            asyncio.get_running_loop().call_soon(self.prove)
        return True

    def prove(self) -> None:
        if self.items:
            self.stream.proven(self.items[-1].index)

    def close(self, code: int, reason: str) -> None:
        self.open, self.closed = False, (code, reason)
        self._changed.set()

    async def wait_for(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def text(self, name: str = "stdout") -> list[str]:
        contents = [m.content_dict() for m in self.messages if m.msg_type == "stream"]
        return [str(c["text"]).strip() for c in contents if c["name"] == name]

    def replies(self) -> list[Message]:
        return [m for m in self.messages if m.msg_type == "execute_reply"]

    def done(self, count: int = 1) -> Callable[[], bool]:
        return lambda: (
            len(self.replies()) >= count
            and sum(
                m.msg_type == "status" and m.content_dict()["execution_state"] == "idle"
                for m in self.messages
            )
            >= count
        )


class Client:
    """What a stream needs of the gateway client."""

    def __init__(self, gateways: Sequence[FakeGateway]) -> None:
        self.pool = EndpointPool([Endpoint.of(gateway.url) for gateway in gateways])
        self.dialer = Dialer(self.pool, self._target)

    @property
    def is_holdfast(self) -> bool:
        return self.pool.is_holdfast

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        self.pool.mark_down(endpoint, asyncio.get_running_loop().time())

    async def explain(self, kernel_id: str) -> tuple[str, bool] | None:
        return None

    @staticmethod
    def _target(endpoint: Endpoint, kernel_id: str, session_id: str) -> Target:
        url = f"{endpoint.ws_url}/api/kernels/{kernel_id}/channels?session_id={session_id}"
        return Target(url, {}, (STREAM_SUBPROTOCOL, V1_SUBPROTOCOL))


class Scene:
    """Gateways in front of one kernel, and one stream."""

    def __init__(self, gateways: list[FakeGateway], kernel: FakeKernel) -> None:
        self.gateways, self.kernel = gateways, kernel
        self.client = Client(gateways)
        self.gone: list[KernelStream] = []
        self.statuses: list[dict[str, Any]] = []
        self.explanation: tuple[str, bool] | None = None
        self._said = asyncio.Event()
        self.board = StatusBoard(self._publish, LOG)
        self.stream = self.new_stream("s1")

    def new_stream(self, session_id: str, former: StreamRecord | None = None) -> KernelStream:
        key = (self.kernel.kernel_id, session_id)
        monitor = StreamMonitor(key, self.board, self._explain)
        if former is not None:
            monitor.interrupted(asyncio.get_running_loop().time())
        return KernelStream(
            kernel_id=key[0], session_id=session_id, gateway=self.client, monitor=monitor, log=LOG,
            gone=self.gone.append, former=former,
        )  # fmt: skip

    def restart(self, former: StreamRecord | None = None) -> None:
        """As a notebook server that dies and starts again: what its stream left is taken up."""
        record = self.stream.record() if former is None else former
        self.stream.close()
        self.stream = self.new_stream(record.session_id, record)

    async def _explain(self) -> tuple[str, bool] | None:
        return self.explanation

    async def wait_status(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status published so far, or next, that meets ``condition``."""
        async with asyncio.timeout(15):
            while True:
                found = next((s for s in self.statuses if condition(s)), None)
                if found is not None:
                    return found
                self._said.clear()
                await self._said.wait()

    def _publish(self, status: dict[str, Any]) -> None:
        self.statuses.append(status)
        self._said.set()

    def attach(self, *, proves: bool = True) -> Book:
        book = Book(self.stream, proves=proves)
        self.stream.attach(book)
        return book

    def carrying(self) -> FakeGateway:
        return next(gateway for gateway in self.gateways if gateway.connections)


def execute(code: str) -> bytes:
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "s1"}
    return encode_v1(Message.from_dicts(channel="shell", header=header, content={"code": code}))


@asynccontextmanager
async def scene(count: int = 2, *, subprotocol: str = STREAM_SUBPROTOCOL) -> AsyncIterator[Scene]:
    kernel = FakeKernel("k1")
    gateways = [
        await FakeGateway({"k1": kernel}, subprotocol=subprotocol).start() for _ in range(count)
    ]
    made = Scene(gateways, kernel)
    try:
        yield made
    finally:
        made.stream.close()
        for gateway in gateways:
            await gateway.kill()


async def eventually(condition: Callable[[], bool], seconds: float = 5) -> None:
    """For what has no event of its own; yields to the loop between looks."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)
