"""The caller's decisions: how often to try, where, and which outcome to report.

The endpoints are fakes of one method (`wait_ready`) and the attempts are scripted, so each
sequence of failures is exact; the clock is the test's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from holdfast_proxy.store.calls import Authenticator, Caller, LeaseExists, Metadata
from holdfast_proxy.store.endpoints import Channel, Channels, parse_endpoints
from holdfast_proxy.store.errors import (
    AuthenticationFailed,
    LeaseLost,
    Misuse,
    Rejected,
    StoreError,
    Unknown,
    Unreachable,
)
from holdfast_proxy.store.verdict import Effect


class FakeChannel(Channel):
    """Connected, or not; no network."""

    def __init__(self, target: str, *, ready: bool, wait: Callable[[float], None]) -> None:
        super().__init__(target, None)
        self._ready = ready
        self._wait = wait

    async def wait_ready(self, timeout: float, *, fail_fast: bool) -> bool:
        if not self._ready:
            self._wait(0.01 if fail_fast else timeout)
        return self._ready


class Script:
    """Each attempt takes the next item: a details text to fail with, or None to be answered."""

    def __init__(self, *items: str | None, targets: str = "a", down: str = "") -> None:
        self.now = 0.0
        self.items = list(items)
        self.tried: list[str] = []
        self.shares: list[float] = []
        self.metadata: list[Metadata] = []
        channels = Channels(
            targets, lambda name: FakeChannel(name, ready=name not in down, wait=self.pass_time)
        )
        self.caller = Caller(
            channels, Authenticator(None), timeout=3, clock=lambda: self.now, sleep=self.sleep
        )

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        self.pass_time(seconds)
        await asyncio.sleep(0)

    async def attempt(self, channel: Channel, seconds: float, metadata: Metadata) -> str:
        await asyncio.sleep(0)
        self.tried.append(channel.target)
        self.shares.append(seconds)
        self.metadata.append(metadata)
        self.pass_time(0.1)
        details = self.items.pop(0) if len(self.items) > 1 else self.items[0]
        if details is None:
            return "answer"
        if details == "Deadline Exceeded":
            self.pass_time(seconds)
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(_CODES.get(details, _UNAVAILABLE), nothing, nothing, details)

    async def call(self, effect: Effect, *, lease: int = 0, leader: bool = True) -> str:
        return await self.caller.call(
            self.attempt, effect, timeout=None, lease=lease, needs_leader=leader
        )


_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
_CODES = {
    "Deadline Exceeded": grpc.StatusCode.DEADLINE_EXCEEDED,
    "etcdserver: permission denied": grpc.StatusCode.PERMISSION_DENIED,
    "etcdserver: invalid auth token": grpc.StatusCode.UNAUTHENTICATED,
}


async def test_an_answer_needs_one_attempt() -> None:
    script = Script(None, targets="abc")
    assert await script.call(Effect.ONCE) == "answer"
    assert script.tried == ["a"]
    assert script.shares == [3], "a write gets all the time"
    assert script.metadata == [(("hasleader", "true"),)]


async def test_a_serializable_read_asks_for_no_leader() -> None:
    script = Script(None)
    await script.call(Effect.READ, leader=False)
    assert script.metadata == [()]


@pytest.mark.parametrize("effect", list(Effect))
async def test_what_was_not_applied_is_tried_elsewhere(effect: Effect) -> None:
    script = Script("etcdserver: no leader", "etcdserver: too many requests", None, targets="abc")
    assert await script.call(effect) == "answer"
    assert script.tried == ["a", "b", "c"]


async def test_an_endpoint_that_is_down_is_left_and_stays_left() -> None:
    script = Script(None, targets="abc", down="ab")
    assert await script.call(Effect.ONCE) == "answer"
    assert await script.call(Effect.ONCE) == "answer"
    assert script.tried == ["c", "c"]


@pytest.mark.parametrize("details", ["Socket closed", "Deadline Exceeded", "etcdserver: x"])
async def test_a_write_that_may_be_applied_is_never_sent_again(details: str) -> None:
    script = Script(details, None, targets="abc")
    with pytest.raises(Unknown):
        await script.call(Effect.ONCE)
    assert script.tried == ["a"]
    assert script.caller.channels.current.target == "b", "but the endpoint is left"


async def test_a_write_that_never_left_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        await Script(None, down="a").call(Effect.ONCE)
    script = Script("etcdserver: no leader", targets="ab")
    with pytest.raises(Unreachable):
        await script.call(Effect.ONCE)
    assert len(script.tried) > 2, "tried until the deadline"


async def test_not_applied_first_and_lost_then_is_unknown() -> None:
    script = Script("etcdserver: no leader", "Socket closed", targets="ab")
    with pytest.raises(Unknown):
        await script.call(Effect.ONCE)
    assert script.tried == ["a", "b"]


async def test_a_read_is_repeated_and_never_unknown() -> None:
    script = Script("Socket closed", "etcdserver: leader changed", None, targets="ab")
    assert await script.call(Effect.READ) == "answer"
    with pytest.raises(Unreachable):
        await Script("Socket closed", targets="ab").call(Effect.READ)


async def test_a_lease_call_is_repeated_and_unknown_in_the_end() -> None:
    assert await Script("Socket closed", None, targets="ab").call(Effect.IDEMPOTENT) == "answer"
    script = Script("Socket closed", "etcdserver: no leader", targets="ab")
    with pytest.raises(Unknown):
        await script.call(Effect.IDEMPOTENT)


async def test_a_read_shares_its_time_among_the_endpoints() -> None:
    script = Script("Deadline Exceeded", "Deadline Exceeded", None, targets="abc")
    assert await script.call(Effect.READ) == "answer"
    assert script.shares[0] == pytest.approx(1.0)
    assert script.tried == ["a", "b", "c"]
    alone = Script(None, targets="a")
    await alone.call(Effect.READ)
    assert alone.shares == [3]


@pytest.mark.parametrize(
    ("details", "error"),
    [
        ("etcdserver: permission denied", Rejected),
        ("etcdserver: requested lease not found", LeaseLost),
        ("etcdserver: invalid auth token", AuthenticationFailed),
        ("etcdserver: user name is empty", AuthenticationFailed),
        ("etcdserver: lease already exists", Rejected),
    ],
)
async def test_a_no_is_an_answer(details: str, error: type[StoreError]) -> None:
    script = Script(details, None, targets="ab")
    with pytest.raises(error):
        await script.call(Effect.ONCE, lease=7)
    assert script.tried == ["a"]
    assert script.caller.channels.current.target == "a", "the endpoint is sound"


async def test_a_lease_of_our_own_earlier_attempt_is_found() -> None:
    script = Script("Socket closed", "etcdserver: lease already exists")
    with pytest.raises(LeaseExists):
        await script.call(Effect.IDEMPOTENT)


async def test_calls_that_fail_together_move_on_once() -> None:
    script = Script("etcdserver: no leader", "etcdserver: no leader", None, targets="abc")
    results = await asyncio.gather(script.call(Effect.READ), script.call(Effect.READ))
    assert results == ["answer", "answer"]
    assert script.tried == ["a", "a", "b", "b"]


async def test_a_cancelled_caller_is_cancelled() -> None:
    script = Script(None)

    async def hang(*_: object) -> str:
        await asyncio.Event().wait()
        return ""

    calling = asyncio.create_task(script.caller.call(hang, Effect.ONCE, timeout=None))
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


@pytest.mark.parametrize(
    ("effect", "error"),
    [(Effect.ONCE, Unknown), (Effect.IDEMPOTENT, Unknown), (Effect.READ, Unreachable)],
)
async def test_a_call_under_way_when_the_store_closes_has_an_outcome(
    effect: Effect, error: type[StoreError]
) -> None:
    script = Script(None)

    async def close(*_: object) -> str:
        script.caller.closed = True
        raise asyncio.CancelledError  # what closing a channel does to its calls

    with pytest.raises(error):
        await script.caller.call(close, effect, timeout=None)
    with pytest.raises(Misuse):
        await script.call(effect)


async def test_a_call_that_grpc_gave_up_by_itself_is_judged_by_its_effect() -> None:
    for effect in (Effect.READ, Effect.ONCE):
        script = Script(None)
        attempts = iter((asyncio.CancelledError(), None))

        async def attempt(*_: object, attempts: Any = attempts) -> str:
            error = next(attempts)
            if error is not None:
                raise error
            return "answer"

        calling = script.caller.call(attempt, effect, timeout=None)
        if effect is Effect.READ:
            assert await calling == "answer"
        else:
            with pytest.raises(Unknown):
                await calling


# --- endpoints


def test_endpoints_are_read() -> None:
    urls = ["http://a:1", "b:2", " http://a:1/ ", "[::1]:3"]
    assert parse_endpoints(urls) == (("a:1", "b:2", "[::1]:3"), False)
    assert parse_endpoints(["https://a:1", "https://b:2"]) == (("a:1", "b:2"), True)


@pytest.mark.parametrize(
    "urls",
    [
        [],
        [""],
        ["a"],
        ["http://a"],
        [":1"],
        ["://a:1"],
        ["a:b"],
        ["ftp://a:1"],
        ["http://a:1/v3"],
        ["http://a:1", "https://b:1"],
        ["a:1", "https://b:1"],
    ],
)
def test_endpoints_that_cannot_work_are_refused(urls: list[str]) -> None:
    with pytest.raises(Misuse):
        parse_endpoints(urls)
