"""One call to etcd from its deadline's view: attempts, rotation, authentication, outcome.

`Caller.call` turns any number of attempts on any number of endpoints into one of the contract's
outcomes. What a status means is decided by `verdict`; which endpoint is next by `endpoints`.

Must not know: what is in a request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from holdfast_proxy.store.endpoints import Channel, Channels
from holdfast_proxy.store.errors import (
    AuthenticationFailed,
    LeaseLost,
    Misuse,
    Rejected,
    StoreError,
    Unknown,
    Unreachable,
)
from holdfast_proxy.store.stubs import load_messages
from holdfast_proxy.store.verdict import Effect, Verdict, judge

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
#: (channel, seconds that this attempt has, metadata) -> answer
Attempt = Callable[[Channel, float, Metadata], Awaitable[T]]

#: etcd's ``rpctypes.MetadataRequireLeaderKey``: a member without a leader refuses at once
#: instead of holding the call until its deadline.
_NEEDS_LEADER: Final = ("hasleader", "true")
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Login:
    """Password authentication."""

    user: str
    password: str = field(repr=False)


class LeaseExists(StoreError):
    """A grant with an id of the caller's choice found it taken; `EtcdStore` only."""


async def unary(
    channel: Channel, method: str, request: Any, answer: Any, timeout: float, metadata: Metadata
) -> Any:
    """One unary call of ``method`` (``KV/Range``). Raises ``grpc.aio.AioRpcError``."""
    call = channel.grpc_channel.unary_unary(
        f"/etcdserverpb.{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return await call(request, timeout=timeout, metadata=metadata)


class Authenticator:
    """Gets etcd's token for a user and password, and another one when it has expired."""

    def __init__(self, login: Login | None) -> None:
        self._login = login
        self._token: str | None = None
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        state = "none" if self._login is None else "has token" if self._token else "no token"
        return f"<Authenticator {state}>"

    async def metadata(self, channel: Channel, timeout: float) -> Metadata:
        """The token for a call's metadata; asks ``channel`` for one when there is none.

        Raises ``TimeoutError`` after ``timeout`` seconds, also while another call is asking.
        """
        if self._login is None:
            return ()
        # The lock: ten calls that find the token expired renew it once.
        async with asyncio.timeout(timeout), self._lock:
            if self._token is None:
                messages = load_messages()
                request = messages.AuthenticateRequest(
                    name=self._login.user, password=self._login.password
                )
                answer = await unary(
                    channel,
                    "Auth/Authenticate",
                    request,
                    messages.AuthenticateResponse,
                    timeout,
                    (),
                )
                self._token = str(answer.token)
            return (("token", self._token),)

    def present(self) -> Metadata:
        """The token in use, if any, without asking for one."""
        return () if self._token is None else (("token", self._token),)

    def expire(self, metadata: Metadata) -> bool:
        """The server refused the token in ``metadata``. False: we have no login to renew it."""
        if self._login is None:
            return False
        if dict(metadata).get("token") == self._token:
            self._token = None
        return True


@dataclass(slots=True)
class _Progress:
    """What one call has been through. ``untried``: endpoints that this round has left."""

    effect: Effect
    deadline: float
    endpoints: int
    untried: int
    pause: float = _FIRST_PAUSE
    ambiguous: bool = False
    renewed: bool = False
    reason: str = "no attempt was possible"

    def failure(self) -> Unknown | Unreachable:
        """Invariant: `Unreachable` only if no attempt that may write went unanswered."""
        if self.ambiguous and self.effect is not Effect.READ:
            return Unknown(f"etcd did not answer, the call may have been applied: {self.reason}")
        return Unreachable(f"etcd cannot be reached: {self.reason}")


class Caller:
    """Makes calls on the current endpoint and moves on when it does not serve."""

    def __init__(
        self,
        channels: Channels,
        authenticator: Authenticator,
        *,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.channels = channels
        self.authenticator = authenticator
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self.closed = False

    def __repr__(self) -> str:
        return f"<Caller {self.channels!r} {self.authenticator!r}>"

    async def call(
        self,
        attempt: Attempt[T],
        effect: Effect,
        *,
        timeout: float | None,
        needs_leader: bool = True,
        lease: int = 0,
    ) -> T:
        """Attempt until answered or out of time.

        Raises `Unreachable`, `Unknown`, `Rejected`, `LeaseLost` (of ``lease``), `LeaseExists`,
        `Misuse` when closed. Invariant: after an attempt of an `Effect.ONCE` call that may have
        been applied there is no further attempt.
        """
        seconds = self._timeout if timeout is None else timeout
        endpoints = len(self.channels)
        progress = _Progress(effect, self._clock() + seconds, endpoints, endpoints)
        while True:
            channel = await self._wait_turn(progress)
            try:
                return await self._attempt(attempt, channel, progress, needs_leader=needs_leader)
            except _EndpointFailed as error:
                progress.reason = str(error)
                progress.untried -= 1
                self.channels.report_failure(channel, progress.reason)
            except grpc.aio.AioRpcError as error:
                self._digest(error, channel, progress, lease)
            except grpc.aio.UsageError as error:
                raise Misuse("the store is closed") from error
            except asyncio.CancelledError:
                if cancelled_by_caller():
                    raise
                self._digest_cancellation(progress)

    async def _wait_turn(self, progress: _Progress) -> Channel:
        """The endpoint to try next; pauses when a round over all of them has failed."""
        while True:
            self.check_open()
            left = progress.deadline - self._clock()
            if left <= 0:
                raise progress.failure()
            if progress.untried > 0:
                return self.channels.current
            await self._sleep(min(progress.pause, left))
            progress.pause = min(progress.pause * 2, _LONGEST_PAUSE)
            progress.untried = progress.endpoints

    async def _attempt(
        self, attempt: Attempt[T], channel: Channel, progress: _Progress, *, needs_leader: bool
    ) -> T:
        """One attempt on one endpoint, with its share of the time that is left.

        The connection is made first, so that "not connected" is known to be "not sent".
        """
        left = progress.deadline - self._clock()
        share = left / max(progress.untried, 1)
        if not await channel.wait_ready(share, fail_fast=progress.endpoints > 1):
            raise _EndpointFailed(f"{channel.target} does not accept a connection")
        try:
            token = await self.authenticator.metadata(channel, share)
        except TimeoutError:
            raise _EndpointFailed(f"{channel.target} does not answer a login") from None
        except grpc.aio.AioRpcError as error:
            if judge(error.code(), error.details() or "") is Verdict.AMBIGUOUS:
                raise _EndpointFailed(f"{channel.target}: {error.details()}") from error
            raise
        metadata = (*token, _NEEDS_LEADER) if needs_leader else token
        left = progress.deadline - self._clock()
        # A transaction gets all the time: after an unanswered one there is no second attempt.
        share = left if progress.effect is Effect.ONCE else left / max(progress.untried, 1)
        try:
            return await attempt(channel, max(share, 0.001), metadata)
        except grpc.aio.AioRpcError as error:
            verdict = judge(error.code(), error.details() or "")
            if verdict is Verdict.LOGIN_EXPIRED and not progress.renewed:
                progress.renewed = True
                if self.authenticator.expire(token):
                    return await self._attempt(
                        attempt, channel, progress, needs_leader=needs_leader
                    )
            raise

    def check_open(self) -> None:
        """Raises `Misuse` after the store was closed."""
        if self.closed:
            raise Misuse("the store is closed")

    async def metadata(self, channel: Channel, timeout: float) -> Metadata:
        """For a stream that its user drives: the token, and that a leader is needed."""
        return (*await self.authenticator.metadata(channel, timeout), _NEEDS_LEADER)

    def _digest_cancellation(self, progress: _Progress) -> None:
        """gRPC gave the call up by itself. Return to try again."""
        progress.reason = "the call was cancelled inside this process"
        progress.ambiguous = True
        progress.untried -= 1
        if self.closed or progress.effect is Effect.ONCE:
            raise progress.failure() from None

    def _digest(self, error: Any, channel: Channel, progress: _Progress, lease: int) -> None:
        """Return to try again; raise when this was the answer."""
        details = error.details() or error.code().name
        progress.reason = f"{channel.target}: {details}"
        match judge(error.code(), details):
            case Verdict.NOT_APPLIED:
                pass
            case Verdict.AMBIGUOUS:
                progress.ambiguous = True
                if progress.effect is Effect.ONCE:
                    self.channels.report_failure(channel, details)
                    raise progress.failure() from error
            case Verdict.LEASE_NOT_FOUND:
                raise LeaseLost(lease) from error
            case Verdict.LEASE_EXISTS:
                if progress.ambiguous:
                    raise LeaseExists(details) from error
                raise Rejected(details) from error
            case Verdict.AUTH_REFUSED | Verdict.LOGIN_EXPIRED:
                raise AuthenticationFailed(f"etcd: {details}") from error
            case Verdict.REJECTED:
                raise Rejected(f"etcd: {details}") from error
        progress.untried -= 1
        self.channels.report_failure(channel, details)


def cancelled_by_caller() -> bool:
    """Ask in ``except CancelledError``: gRPC raises it also for a call that was cancelled by the
    closing of its channel, and nobody has cancelled this task then."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class _EndpointFailed(Exception):
    """This endpoint cannot be used now; nothing of the call was sent."""
