"""Calls between simulated processes, and what becomes of each: the network's choices as values.

A call that was sent is handled whether or not its sender still lives or waits: late, twice, with
its answer lost, as its ``Fate`` says. A fate is decided by ``Network.decide`` at the moment of
sending; without one a call takes a millisecond each way. It must not know HTTP's details or
what the calls mean.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from holdfast_proxy.ownership.calls.calling import Answer, NoReply, NotSent, Target
from holdfast_proxy.store.errors import StoreError, Unknown, Unreachable
from holdfast_proxy.store.memory import Link, MemoryServer, MemoryStore
from simulation.simulated_loop import OPERATION, PROCESS, Process, SimulatedLoop

T = TypeVar("T")

#: Seconds on the wire of a call that nothing is done to.
WIRE = 0.001
#: Seconds after which a call to the store that has no answer fails.
STORE_DEADLINE = 2.0


class Lost(Enum):
    NOTHING = "nothing"
    REQUEST = "request"  # never handled, and the sender hears nothing
    ANSWER = "answer"  # handled, and the sender hears nothing
    RESET = "reset"  # handled, and the sender sees the connection break
    REFUSED = "refused"  # never handled, and the sender knows it


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one call. ``request``, ``answer``: seconds each way; ``again``: it is
    handled once more so many seconds after the first time (nobody hears that answer)."""

    request: float = WIRE
    answer: float = WIRE
    lost: Lost = Lost.NOTHING
    again: float | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it is sent. ``to``: "store", or the server's name; ``acts``: it may change
    something; ``operation``: what it is sent for."""

    sender: str
    to: str
    what: str
    acts: bool
    operation: str | None
    sent_at: float
    headers: Mapping[str, str] = field(default_factory=dict)


class Server(ABC):
    """Somebody who takes calls, at a URL."""

    def __init__(self, name: str, host: str, process: Process) -> None:
        self.name = name
        self.host = host
        self.process = process

    @abstractmethod
    async def handle(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> Answer:
        """Runs as code of ``process``. ``headers`` has ``Arrived``: when it came, in seconds."""


class Network:
    """All wires of one world."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.servers: dict[str, Server] = {}
        self._hosts: dict[str, str] = {}
        self._open: dict[str, set[asyncio.Future[Answer]]] = {}
        #: (from host, to host) between which nothing arrives, in this direction.
        self.cut: set[tuple[str, str]] = set()
        self.decide: Callable[[Call], Fate | None] = lambda _call: None
        self.on_call: Callable[[Call], None] = lambda _call: None

    def __repr__(self) -> str:
        return f"<Network of {len(self.servers)} servers, {len(self.cut)} cuts>"

    def listen(self, url: str, server: Server) -> None:
        self.servers[url], self._hosts[url] = server, server.host
        self._open[url] = set()

    def close(self, url: str) -> None:
        """Its process is gone: the port refuses, and connections break."""
        self.servers.pop(url, None)
        for answer in self._open.pop(url, ()):
            self._settle(answer, WIRE, NoReply("the connection broke"))

    def fate(self, call: Call, from_host: str, to_host: str) -> Fate:
        self.on_call(call)
        fate = self.decide(call) or Fate()
        if (from_host, to_host) in self.cut:
            return Fate(lost=Lost.REQUEST)
        if (to_host, from_host) in self.cut and fate.lost is Lost.NOTHING:
            return Fate(fate.request, fate.answer, Lost.ANSWER, fate.again)
        return fate

    def caller(self, host: str) -> Callable[..., Any]:
        """In place of ``Caller.call`` of a process on ``host``."""

        async def call(
            method: str,
            target: Target,
            path: str,
            *,
            timeout: float,
            headers: Sequence[tuple[str, str]] = (),
            body: Mapping[str, Any] | None = None,
            acts: bool = False,
        ) -> Answer:
            sent = dict(headers)
            if target.bearer is not None:
                sent["Authorization"] = f"Bearer {target.bearer}"
            return await self._call(host, method, target.url, path, timeout, sent, body)

        return call

    async def _call(
        self,
        host: str,
        method: str,
        url: str,
        path: str,
        timeout: float,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None,
    ) -> Answer:
        process, operation = PROCESS.get(), OPERATION.get()
        server = self.servers.get(url)
        to_host = self._hosts.get(url, "")
        call = Call(
            "" if process is None else process.name,
            url if server is None else server.name,
            f"{method} {path}",
            method != "GET",
            operation,
            self.loop.time(),
            headers,
        )
        fate = self.fate(call, host, to_host)
        answer: asyncio.Future[Answer] = self.loop.create_future()
        if fate.lost is Lost.REQUEST and (host, to_host) in self.cut:
            self._settle(answer, min(timeout, 2.0), NotSent("no connection"))
        elif fate.lost is Lost.REFUSED or (server is None and fate.lost is not Lost.REQUEST):
            self._settle(answer, WIRE, NotSent("refused", refused=True))
        else:
            self._settle(answer, timeout, NoReply("no answer in time"))
        if server is not None and fate.lost not in (Lost.REQUEST, Lost.REFUSED):
            waiting = self._open[url]
            waiting.add(answer)
            answer.add_done_callback(waiting.discard)
            self._deliver(url, fate, answer, operation, (method, path, headers, body))
        return await answer

    def _deliver(
        self,
        url: str,
        fate: Fate,
        answer: asyncio.Future[Answer],
        operation: str | None,
        request: tuple[str, str, Mapping[str, str], Mapping[str, Any] | None],
    ) -> None:
        server = self.servers[url]
        method, path, headers, body = request

        def arrive(*, heard: bool) -> None:
            if self.servers.get(url) is not server:
                self._settle(answer, WIRE, NoReply("the connection broke"))
                return
            arrived = {**headers, "Arrived": str(self.loop.time())}
            work = server.handle(method, path, arrived, body)
            task = server.process.spawn(work, operation=operation)
            if heard:
                task.add_done_callback(reply)

        def reply(task: asyncio.Task[Answer]) -> None:
            if task.cancelled() or task.exception() is not None or fate.lost is Lost.RESET:
                self._settle(answer, fate.answer, NoReply("the connection broke"))
            elif fate.lost is not Lost.ANSWER:
                self.loop.call_later(fate.answer, _set, answer, task.result())

        self.loop.call_later(fate.request, lambda: arrive(heard=True))
        if fate.again is not None:
            self.loop.call_later(fate.request + fate.again, lambda: arrive(heard=False))

    def _settle(self, answer: asyncio.Future[Any], after: float, error: Exception) -> None:
        self.loop.call_later(after, _fail, answer, error)


class SimulatedStore(MemoryStore):
    """One proxy's client of the store, over the simulated network."""

    def __init__(self, server: MemoryServer, network: Network, host: str) -> None:
        super().__init__(server)
        self._network = network
        self._host = host

    def reconnect(self) -> None:
        """Look again at what the network lets through: watches deliver both ways or not."""
        cut = {(self._host, "store"), ("store", self._host)} & self._network.cut
        self.link = Link.REFUSED if cut else Link.UP

    async def _call(self, step: Callable[[], T], *, writes: bool) -> T:
        self._check_open()
        network, process = self._network, PROCESS.get()
        call = Call(
            "" if process is None else process.name,
            "store",
            "write" if writes else "read",
            writes,
            OPERATION.get(),
            network.loop.time(),
        )
        fate = network.fate(call, self._host, "store")
        answer: asyncio.Future[T] = network.loop.create_future()
        no_answer = Unknown("no answer from the store") if writes else Unreachable("no answer")

        def handle(*, heard: bool) -> None:
            try:
                result, error = step(), None
            except StoreError as refusal:
                result, error = None, refusal
            if not heard or fate.lost is Lost.ANSWER:
                return
            if fate.lost is Lost.RESET:
                error = no_answer
            if error is not None:
                network.loop.call_later(fate.answer, _fail, answer, error)
            else:
                network.loop.call_later(fate.answer, _set, answer, result)

        if fate.lost is Lost.REFUSED:
            network.loop.call_later(WIRE, _fail, answer, Unreachable("refused"))
        elif fate.lost is not Lost.REQUEST:
            network.loop.call_later(fate.request, lambda: handle(heard=True))
            if fate.again is not None:
                later = fate.request + fate.again
                network.loop.call_later(later, lambda: handle(heard=False))
        network.loop.call_later(STORE_DEADLINE, _fail, answer, no_answer)
        return await answer


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # who waited may be gone
