"""The `Store` on etcd v3 over gRPC.

Calls go through `calls.Caller`, watches through `watch.EtcdWatch`, the messages come from
`stubs`. Nothing here knows what the keys mean.

Rejected: the ``etcd3`` client class (blocks, knows one endpoint, loses watches when a node dies)
and etcd's locks and elections (unsafe without fencing; the ownership decision does not use them).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import structlog

from holdfast_proxy.store import codec
from holdfast_proxy.store.calls import (
    Authenticator,
    Caller,
    LeaseExists,
    Login,
    Metadata,
    unary,
)
from holdfast_proxy.store.contract import (
    Compare,
    Get,
    KeyValue,
    Member,
    Op,
    Put,
    Snapshot,
    Store,
    StoreStatus,
    TxnResult,
)
from holdfast_proxy.store.endpoints import Channel, Channels, TlsFiles, parse_endpoints
from holdfast_proxy.store.errors import LeaseLost, Misuse, Rejected, StoreError
from holdfast_proxy.store.stubs import load_messages
from holdfast_proxy.store.validation import (
    check_key,
    check_lease,
    check_start,
    check_ttl,
    check_txn,
)
from holdfast_proxy.store.verdict import Effect, version_warning
from holdfast_proxy.store.watch import EtcdWatch, WatchTiming

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """Where etcd is and how to log in.

    ``endpoints``: ``http://host:port``, ``https://host:port`` or ``host:port``, the preferred
    one first. ``timeout``: seconds that a call has when it names none.
    """

    endpoints: tuple[str, ...]
    tls: TlsFiles | None = None
    login: Login | None = None
    timeout: float = 3.0
    watch: WatchTiming = field(default_factory=WatchTiming)


class EtcdStore(Store):
    """Connects at the first call; create it on the loop that uses it."""

    def __init__(self, config: EtcdConfig) -> None:
        """Raises `Misuse` for a configuration that cannot work; no I/O but reading PEM files."""
        targets, secure = parse_endpoints(config.endpoints)
        if config.tls is not None and not secure:
            raise Misuse("TLS files are given, but the etcd endpoints are not https://")
        credentials = (config.tls or TlsFiles()).credentials() if secure else None
        channels = Channels(targets, lambda target: Channel(target, credentials))
        self._config = config
        self._messages = load_messages()
        self._caller = Caller(channels, Authenticator(config.login), timeout=config.timeout)
        self._watches: set[EtcdWatch] = set()
        self._greeting: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._caller.closed else repr(self._caller)
        return f"<EtcdStore {state} watches={len(self._watches)}>"

    async def get(
        self, key: str, *, serializable: bool = False, timeout: float | None = None
    ) -> KeyValue | None:
        check_key(key)
        request = self._messages.RangeRequest(key=key.encode(), serializable=serializable)
        answer = await self._range(request, timeout)
        return codec.key_value(answer.kvs[0]) if answer.kvs else None

    async def range(
        self, prefix: str, *, serializable: bool = False, timeout: float | None = None
    ) -> Snapshot:
        check_key(prefix)
        # One response, not pages: pages need a pinned revision that a compaction can take away.
        request = self._messages.RangeRequest(
            key=prefix.encode(), range_end=codec.prefix_end(prefix), serializable=serializable
        )
        answer = await self._range(request, timeout)
        return Snapshot(tuple(codec.key_value(kv) for kv in answer.kvs), answer.header.revision)

    async def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Op],
        otherwise: Sequence[Op] = (),
        *,
        unconditional: bool = False,
        timeout: float | None = None,
    ) -> TxnResult:
        check_txn(compares, then, otherwise, unconditional=unconditional)
        ops = (*then, *otherwise)
        answer = await self._unary(
            "KV/Txn",
            codec.txn_request(self._messages, compares, then, otherwise),
            self._messages.TxnResponse,
            Effect.READ if all(isinstance(op, Get) for op in ops) else Effect.ONCE,
            timeout,
            lease=next((op.lease for op in ops if isinstance(op, Put) and op.lease), 0),
        )
        return codec.txn_result(answer, then, otherwise)

    def watch(self, prefix: str, *, start_revision: int) -> EtcdWatch:
        self._caller.check_open()
        check_key(prefix)
        check_start(start_revision)
        watch = EtcdWatch(
            self._caller,
            prefix,
            start_revision,
            timing=self._config.watch,
            on_closed=self._watches.discard,
        )
        self._watches.add(watch)
        return watch

    async def lease_grant(self, ttl: float, *, timeout: float | None = None) -> int:
        check_ttl(ttl)
        # The id is ours, so that a grant whose answer was lost can be repeated, not doubled.
        lease = secrets.randbits(62) + 1
        request = self._messages.LeaseGrantRequest(TTL=math.ceil(ttl), ID=lease)
        try:
            answer = await self._unary(
                "Lease/LeaseGrant",
                request,
                self._messages.LeaseGrantResponse,
                Effect.IDEMPOTENT,
                timeout,
            )
        except LeaseExists:  # by our own earlier attempt
            return lease
        if answer.error:
            raise Rejected(f"etcd: {answer.error}")
        return int(answer.ID)

    async def lease_keepalive(self, lease: int, *, timeout: float | None = None) -> float:
        check_lease(lease)

        async def attempt(channel: Channel, seconds: float, metadata: Metadata) -> Any:
            return await self._keepalive_once(lease, channel, seconds, metadata)

        answer = await self._caller.call(attempt, Effect.IDEMPOTENT, timeout=timeout, lease=lease)
        self._greet()
        if answer.TTL <= 0:  # how etcd says "no such lease" in this call
            raise LeaseLost(lease)
        return float(answer.TTL)

    async def lease_revoke(self, lease: int, *, timeout: float | None = None) -> None:
        check_lease(lease)
        request = self._messages.LeaseRevokeRequest(ID=lease)
        try:
            await self._unary(
                "Lease/LeaseRevoke",
                request,
                self._messages.LeaseRevokeResponse,
                Effect.IDEMPOTENT,
                timeout,
                lease=lease,
            )
        except LeaseLost:
            return

    async def status(self, *, timeout: float | None = None) -> StoreStatus:
        asked: list[str] = []

        async def attempt(channel: Channel, seconds: float, metadata: Metadata) -> Any:
            asked.append(channel.target)
            request = self._messages.StatusRequest()
            answer = self._messages.StatusResponse
            return await unary(channel, "Maintenance/Status", request, answer, seconds, metadata)

        answer = await self._caller.call(attempt, Effect.READ, timeout=timeout, needs_leader=False)
        return StoreStatus(
            version=answer.version,
            member=answer.header.member_id,
            leader=answer.leader,
            endpoint=asked[-1],
            db_bytes=answer.dbSize,
            members=await self._members(timeout),
            warning=version_warning(answer.version),
        )

    async def close(self) -> None:
        self._caller.closed = True
        if self._greeting is not None:
            self._greeting.cancel()
            await asyncio.gather(self._greeting, return_exceptions=True)
        for watch in list(self._watches):
            await watch.aclose()
        await self._caller.channels.close()

    async def _range(self, request: Any, timeout: float | None) -> Any:
        return await self._unary(
            "KV/Range",
            request,
            self._messages.RangeResponse,
            Effect.READ,
            timeout,
            needs_leader=not request.serializable,
        )

    async def _unary(
        self,
        method: str,
        request: Any,
        answer: Any,
        effect: Effect,
        timeout: float | None,
        *,
        needs_leader: bool = True,
        lease: int = 0,
    ) -> Any:
        async def attempt(channel: Channel, seconds: float, metadata: Metadata) -> Any:
            return await unary(channel, method, request, answer, seconds, metadata)

        result = await self._caller.call(
            attempt, effect, timeout=timeout, needs_leader=needs_leader, lease=lease
        )
        self._greet()
        return result

    async def _keepalive_once(
        self, lease: int, channel: Channel, seconds: float, metadata: Metadata
    ) -> Any:
        """One request and one answer on a stream of their own: a deadline for every renewal."""
        call = channel.grpc_channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=self._messages.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=self._messages.LeaseKeepAliveResponse.FromString,
        )
        stream = call(timeout=seconds, metadata=metadata)
        try:
            with contextlib.suppress(asyncio.InvalidStateError):  # over already: read why
                await stream.write(self._messages.LeaseKeepAliveRequest(ID=lease))
            answer = await stream.read()
            if answer is grpc.aio.EOF:
                raise grpc.aio.AioRpcError(
                    grpc.StatusCode.UNAVAILABLE,
                    await stream.initial_metadata(),
                    await stream.trailing_metadata(),
                    details="the keepalive stream ended without an answer",
                )
            return answer
        finally:
            stream.cancel()

    async def _members(self, timeout: float | None) -> tuple[Member, ...]:
        try:
            answer = await self._unary(
                "Cluster/MemberList",
                self._messages.MemberListRequest(),
                self._messages.MemberListResponse,
                Effect.READ,
                timeout,
                needs_leader=False,
            )
        except Rejected:  # with authentication on, only root may list them
            return ()
        return tuple(codec.member(member) for member in answer.members)

    def _greet(self) -> None:
        """After the first answer: look once at the server's version."""
        if self._greeting is None:
            self._greeting = asyncio.create_task(self._log_version(), name="etcd version")

    async def _log_version(self) -> None:
        try:
            status = await self.status()
        except StoreError as error:
            _log.info("etcd version not known", error=str(error))
            return
        if status.warning is not None:
            _log.warning("etcd version", version=status.version, warning=status.warning)
        else:
            _log.info("etcd version", version=status.version, endpoint=status.endpoint)
