"""The two kinds of store that keep the contract, and what an operator may do to them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import grpc.aio

from holdfast_proxy.store.contract import Store
from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore
from holdfast_proxy.store.memory import MemoryServer, MemoryStore
from holdfast_proxy.store.stubs import load_messages
from support.etcd_server import EtcdCluster


class Twin(ABC):
    """One kind of store: clients of it, and an operator's compaction."""

    @abstractmethod
    def open(self) -> Store:
        """Another client of the same server."""

    @abstractmethod
    async def compact(self, revision: int) -> None: ...


class MemoryTwin(Twin):
    def __init__(self) -> None:
        self._server = MemoryServer()

    def open(self) -> Store:
        return MemoryStore(self._server)

    async def compact(self, revision: int) -> None:
        self._server.compact(revision)


class EtcdTwin(Twin):
    def __init__(self, etcd: EtcdCluster) -> None:
        self._endpoints = etcd.endpoints

    def open(self) -> Store:
        return EtcdStore(EtcdConfig(endpoints=self._endpoints, timeout=10))

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
