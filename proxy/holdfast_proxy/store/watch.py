"""A watch on etcd that goes on through lost connections, dead members and frozen ones.

One stream at a time, opened on the current endpoint by a task of the watch's own, which puts
whole batches into a short queue. Silence is not trusted: a server that says nothing is asked for
its progress, and left when it does not answer (a frozen member otherwise holds a watch for as
long as it is frozen, and nothing in gRPC notices, because its TCP stays).

*Resuming.* The position moves on only after a whole response (all fragments of it) was queued,
so a broken stream is repeated from the first revision that was not. The server is asked from one
revision *before* the position and what comes again is dropped. The reason: etcd before 3.5.16
accepts a watch that starts exactly at the compacted revision, although the compaction has removed
that revision's tombstones, and so loses deletions without a word. Asked from one before, it says
"compacted" in that case.

Progress answers prove that the server lives and nothing more: before 3.5.8 their revision may
be ahead of events that are still to come, so the position never follows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from holdfast_proxy.store import codec
from holdfast_proxy.store.calls import Caller, Metadata, cancelled_by_caller
from holdfast_proxy.store.contract import Watch, WatchBatch
from holdfast_proxy.store.endpoints import Channel
from holdfast_proxy.store.errors import (
    AuthenticationFailed,
    Compacted,
    HistoryReplaced,
    Misuse,
    Rejected,
    StoreError,
)
from holdfast_proxy.store.stubs import load_messages
from holdfast_proxy.store.verdict import Verdict, judge

_log = structlog.get_logger(__name__)

_QUEUED_BATCHES: Final = 8
_PAUSES: Final = (0.0, 0.05, 0.1, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTiming:
    """Seconds of silence after which the server is asked, and after which it is left."""

    probe_after: float = 1.0
    silent_after: float = 2.5


class _StreamBroken(Exception):
    """This stream is over and another one may do better."""


class EtcdWatch(Watch):
    """Created by `EtcdStore.watch`, on the running loop."""

    def __init__(
        self,
        caller: Caller,
        prefix: str,
        start_revision: int,
        *,
        timing: WatchTiming,
        on_closed: Callable[[EtcdWatch], None],
    ) -> None:
        self._caller = caller
        self._prefix = prefix
        self._position = start_revision
        self._timing = timing
        self._on_closed = on_closed
        self._messages = load_messages()
        self._seen = 0
        self._connected = False
        self._closed = False
        self._queue: asyncio.Queue[WatchBatch | Exception | None] = asyncio.Queue(_QUEUED_BATCHES)
        self._pump = asyncio.create_task(self._run(), name=f"etcd watch {prefix}")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self._connected else "reconnecting"
        return f"<EtcdWatch {self._prefix} from {self._position} {state}>"

    @property
    def connected(self) -> bool:
        return self._connected and not self._closed

    async def __anext__(self) -> WatchBatch:
        if self._closed:
            raise StopAsyncIteration
        item = await self._queue.get()
        if isinstance(item, WatchBatch):
            return item
        await self.aclose()
        if item is None:
            raise StopAsyncIteration
        raise item

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._on_closed(self)
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)  # for the reader that waits

    async def _run(self) -> None:
        try:
            await self._run_streams()
        except StoreError as error:
            await self._queue.put(error)
        except Exception as error:  # the task's outer edge: its reader must not wait for ever
            _log.exception("etcd watch failed", prefix=self._prefix)
            await self._queue.put(error)
        finally:
            self._connected = False

    async def _run_streams(self) -> None:
        """One stream after the other. Raises what ends the watch: `Compacted`, `Rejected`."""
        failures = 0
        while True:
            channel = self._caller.channels.current
            try:
                await self._run_stream(channel)
            except _StreamBroken as error:
                reason = str(error)
            except grpc.aio.AioRpcError as error:
                reason = self._judge(error)
            except asyncio.CancelledError:
                if cancelled_by_caller():
                    raise
                reason = "the call was cancelled inside this process"
            except grpc.aio.UsageError as error:
                raise Misuse("the store is closed") from error
            failures = 0 if self._connected else failures + 1
            self._connected = False
            _log.info(
                "etcd watch interrupted",
                prefix=self._prefix,
                endpoint=channel.target,
                position=self._position,
                reason=reason,
            )
            self._caller.channels.report_failure(channel, reason)
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])

    async def _run_stream(self, channel: Channel) -> None:
        timing = self._timing
        fail_fast = len(self._caller.channels) > 1
        if not await channel.wait_ready(timing.silent_after, fail_fast=fail_fast):
            raise _StreamBroken("no connection")
        try:
            metadata = await self._caller.metadata(channel, timing.silent_after)
        except TimeoutError:
            raise _StreamBroken("no answer to a login") from None
        call = channel.grpc_channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=self._messages.WatchRequest.SerializeToString,
            response_deserializer=self._messages.WatchResponse.FromString,
        )(metadata=metadata)
        try:
            await self._write(call, create_request=self._create_request())
            fragments: list[Any] = []
            while True:
                response = await self._hear(call)
                self._check_canceled(response, metadata)
                self._check_revision(response)
                if response.created:
                    self._connected = True
                fragments.extend(response.events)
                if not response.fragment:
                    await self._deliver(fragments)
                    fragments = []
        finally:
            call.cancel()

    def _create_request(self) -> Any:
        return self._messages.WatchCreateRequest(
            key=self._prefix.encode(),
            range_end=codec.prefix_end(self._prefix),
            start_revision=max(1, self._position - 1),  # the module's docstring says why
            fragment=True,
        )

    async def _hear(self, call: Any) -> Any:
        """The next response; asks for one when there is silence. Raises `_StreamBroken`."""
        read = asyncio.ensure_future(call.read())
        try:
            await asyncio.wait((read,), timeout=self._timing.probe_after)
            if not read.done():
                await self._write(call, progress_request=self._messages.WatchProgressRequest())
                patience = self._timing.silent_after - self._timing.probe_after
                await asyncio.wait((read,), timeout=patience)
            if not read.done():
                raise _StreamBroken("the server is silent")
            response = read.result()
        finally:
            read.cancel()
            # Also when it is done: its error must not be left for the garbage collector to tell.
            await asyncio.gather(read, return_exceptions=True)
        if response is grpc.aio.EOF:
            raise _StreamBroken("the server ended the stream")
        return response

    async def _write(self, call: Any, **fields: Any) -> None:
        try:
            async with asyncio.timeout(self._timing.silent_after):
                await call.write(self._messages.WatchRequest(**fields))
        except TimeoutError:
            raise _StreamBroken("the server reads nothing") from None
        except asyncio.InvalidStateError:
            # The call is over; reading it tells why.
            await call.read()
            raise _StreamBroken("the server ended the stream") from None

    def _check_canceled(self, response: Any, metadata: Metadata) -> None:
        """Before ``created``: a refused watch is answered with both."""
        if not response.canceled:
            return
        if response.compact_revision:
            raise Compacted(response.compact_revision)
        reason = response.cancel_reason
        if "permission denied" in reason:
            raise Rejected(f"etcd refuses to watch {self._prefix}: {reason}")
        self._refuse(judge(grpc.StatusCode.UNKNOWN, reason), reason, metadata)
        raise _StreamBroken(reason or "the server canceled the watch")

    def _check_revision(self, response: Any) -> None:
        """Behind a revision that it was at is a member that lags, or a store that began anew.

        A lagging member with a leader catches up within the time of a progress answer; whoever
        is behind then as well is taken for the latter. Without this a watch on an etcd that lost
        its data would wait in silence until the numbers were reached again.
        """
        revision = response.header.revision
        if revision >= self._seen or response.events:
            self._seen = max(self._seen, revision)
        elif not response.created:
            raise HistoryReplaced(revision, self._seen)

    def _judge(self, error: Any) -> str:
        """The reason for reconnecting; raises when that would be of no use."""
        details = str(error.details() or error.code().name)
        self._refuse(judge(error.code(), details), details, self._caller.authenticator.present())
        return details

    def _refuse(self, verdict: Verdict, reason: str, metadata: Metadata) -> None:
        match verdict:
            case Verdict.LOGIN_EXPIRED if self._caller.authenticator.expire(metadata):
                return
            case Verdict.LOGIN_EXPIRED | Verdict.AUTH_REFUSED:
                raise AuthenticationFailed(f"etcd: {reason}")
            case Verdict.REJECTED:
                raise Rejected(f"etcd refuses to watch {self._prefix}: {reason}")
            case _:
                return

    async def _deliver(self, raw: list[Any]) -> None:
        events = [codec.event(event) for event in raw]
        fresh = tuple(event for event in events if event.revision >= self._position)
        if not fresh:
            return
        revision = fresh[-1].revision
        await self._queue.put(WatchBatch(revision, fresh))
        self._position = revision + 1
