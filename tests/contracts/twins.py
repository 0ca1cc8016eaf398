"""The two kinds of store that keep the contract, and what an operator may do to them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import grpc.aio

from holdfast_proxy.store.contract import Store
from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore
from holdfast_proxy.store.memory import Link, MemoryServer, MemoryStore
from holdfast_proxy.store.stubs import load_messages
from support.etcd_server import EtcdCluster
from support.tcp_line import TcpLine

T = TypeVar("T")


class Twin(ABC):
    """One kind of store: clients of it, and an operator's compaction."""

    @abstractmethod
    def open(self) -> Store:
        """Another client of the same server."""

    @abstractmethod
    def line(self) -> AbstractAsyncContextManager[Line]:
        """Another client, for faults between it and the server."""

    @abstractmethod
    async def compact(self, revision: int) -> None: ...


class MemoryTwin(Twin):
    def __init__(self) -> None:
        self._server = MemoryServer()

    def open(self) -> Store:
        return MemoryStore(self._server)

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        line = MemoryLine(self._server)
        async with line.store:
            yield line

    async def compact(self, revision: int) -> None:
        self._server.compact(revision)


class EtcdTwin(Twin):
    def __init__(self, etcd: EtcdCluster) -> None:
        self._endpoints = etcd.endpoints

    def open(self) -> Store:
        return EtcdStore(EtcdConfig(endpoints=self._endpoints, timeout=10))

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        async with TcpLine(urlsplit(self._endpoints[0]).port or 0) as wire:
            line = EtcdLine(wire)
            async with line.store:
                yield line

    async def compact(self, revision: int) -> None:
        await compact_etcd(self._endpoints[0], revision)


async def compact_etcd(endpoint: str, revision: int) -> None:
    """As ``etcdctl compaction --physical`` does it."""
    messages = load_messages()
    async with grpc.aio.insecure_channel(endpoint.removeprefix("http://")) as channel:
        call = channel.unary_unary(
            "/etcdserverpb.KV/Compact",
            request_serializer=messages.CompactionRequest.SerializeToString,
            response_deserializer=messages.CompactionResponse.FromString,
        )
        await call(messages.CompactionRequest(revision=revision, physical=True), timeout=10)


class Line(ABC):
    """One client whose way to the server can be cut, and whose answers can be lost."""

    store: Store

    @abstractmethod
    async def cut(self) -> None:
        """Connections are refused from now on."""

    @abstractmethod
    async def mend(self) -> None: ...

    @abstractmethod
    async def lose_answer(self, call: Awaitable[T], applied: Awaitable[object]) -> T:
        """Make the call, wait until it is ``applied``, and lose its answer. Raises as it does."""


class MemoryLine(Line):
    def __init__(self, server: MemoryServer) -> None:
        self.store: MemoryStore = MemoryStore(server)

    async def cut(self) -> None:
        self.store.link = Link.REFUSED

    async def mend(self) -> None:
        self.store.link = Link.UP

    async def lose_answer(self, call: Awaitable[T], applied: Awaitable[object]) -> T:
        self.store.next_links.append(Link.ANSWER_LOST)
        result, _ = await asyncio.gather(call, applied)
        return result


class EtcdLine(Line):
    def __init__(self, line: TcpLine) -> None:
        self._line = line
        self.store = EtcdStore(EtcdConfig(endpoints=(f"http://127.0.0.1:{line.port}",)))

    async def cut(self) -> None:
        await self._line.cut()

    async def mend(self) -> None:
        await self._line.open()

    async def lose_answer(self, call: Awaitable[T], applied: Awaitable[object]) -> T:
        await self.store.get("/connected", timeout=10)
        self._line.hold_answers()
        calling = asyncio.ensure_future(call)
        await applied
        await self._line.drop()
        self._line.release_answers()
        return await calling
