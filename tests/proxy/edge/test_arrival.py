"""Age limits, and a proxy that was frozen: what it held has no effect when it wakes."""

from __future__ import annotations

import itertools

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from holdfast_proxy.edge.arrival import (
    BEAT_SECONDS,
    CALM_BEATS,
    STALL_SECONDS,
    ArrivalClock,
    boottime,
)
from holdfast_proxy.edge.rest.lifecycle_headers import read_call, refuse_if_late
from holdfast_proxy.errors import BadRequest, Unavailable
from support.edge_server import AUTH, serve_edge
from support.fake_cluster import FakeCluster

KERNEL = "11111111-1111-4111-8111-111111111111"


class Time:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_calm_loop_tells_the_time() -> None:
    time = Time()
    clock = ArrivalClock(time)
    for _ in range(20):
        time.now += BEAT_SECONDS
        clock.beat()
        time.now += 0.01
        assert clock.arrival() == time.now
        time.now -= 0.01


def test_what_is_read_before_the_first_beat_after_a_freeze_came_at_its_start() -> None:
    time = Time()
    clock = ArrivalClock(time)
    clock.beat()
    time.now += 30
    assert clock.arrival() == 1000.0  # sockets are served before timers
    clock.beat()
    assert clock.arrival() == 1000.0  # and a second turn reads what the first accepted
    for _ in range(CALM_BEATS):
        assert clock.arrival() == 1000.0
        time.now += BEAT_SECONDS
        clock.beat()
    assert clock.arrival() == time.now


def test_a_second_freeze_before_calm_keeps_the_first_start() -> None:
    time = Time()
    clock = ArrivalClock(time)
    time.now += 30
    clock.beat()
    time.now += 30
    clock.beat()
    assert clock.arrival() == 1000.0


@given(st.lists(st.floats(min_value=0.0, max_value=20.0), min_size=1, max_size=60))
def test_no_arrival_is_later_than_bytes_may_have_come(gaps: list[float]) -> None:
    """Bytes that came in any gap, read right after it, are never dated after the gap's start."""
    time = Time()
    clock = ArrivalClock(time)
    for gap in gaps:
        before = time.now
        time.now += gap
        if gap > STALL_SECONDS + BEAT_SECONDS:
            assert clock.arrival() <= before
        assert clock.arrival() <= time.now
        clock.beat()
        if gap > STALL_SECONDS + BEAT_SECONDS:
            assert clock.arrival() <= before


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def test_a_call_is_read_from_its_headers() -> None:
    call = read_call(
        headers(
            ("Holdfast-Request", "r-1"),
            ("Holdfast-After", "a:b:3"),
            ("holdfast-after", "c:0"),
            ("Holdfast-Max-Age", "2.5"),
        ),
        arrival=100.0,
        default_max_age=10.0,
        forwarded_by="p2",
    )
    assert call.request_id == "r-1"
    assert call.after == (("a:b", 3), ("c", 0))
    assert call.deadline == 102.5
    assert call.forwarded_by == "p2"


def test_without_headers_the_default_age_holds() -> None:
    call = read_call(headers(), arrival=100.0, default_max_age=10.0, forwarded_by=None)
    assert (call.request_id, call.after, call.deadline) == (None, (), 110.0)
    refuse_if_late(call, now=110.0)
    with pytest.raises(Unavailable, match="age limit"):
        refuse_if_late(call, now=110.001)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Holdfast-Request", ""),
        ("Holdfast-Request", "a b"),
        ("Holdfast-Request", "x" * 129),
        ("Holdfast-After", "no-colon"),
        ("Holdfast-After", ":3"),
        ("Holdfast-After", "s:-1"),
        ("Holdfast-After", "s:²"),
        ("Holdfast-Max-Age", "soon"),
        ("Holdfast-Max-Age", "-1"),
        ("Holdfast-Max-Age", "inf"),
        ("Holdfast-Max-Age", "nan"),
    ],
)
def test_malformed_headers_are_refused(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match=name):
        read_call(headers((name, value)), arrival=0, default_max_age=10, forwarded_by=None)


def test_too_many_after_headers_are_refused() -> None:
    many = [("Holdfast-After", f"s:{n}") for n in range(65)]
    with pytest.raises(BadRequest, match="64"):
        read_call(headers(*many), arrival=0, default_max_age=10, forwarded_by=None)


@pytest.mark.parametrize(
    ("frozen", "age", "acts"),
    [
        (30.0, None, False),
        (30.0, "20", False),
        (30.0, "60", True),
        (9.0, None, True),
        (0.0, None, True),
    ],
)
@pytest.mark.parametrize("forwarded", [False, True])
async def test_what_a_frozen_proxy_held_is_refused_when_too_old(
    cluster: FakeCluster, frozen: float, age: str | None, acts: bool, forwarded: bool
) -> None:
    offset = 0.0
    clock = ArrivalClock(lambda: boottime() + offset)
    extra = {} if age is None else {"Holdfast-Max-Age": age}
    who = {"Authorization": "Bearer cluster-key", "Holdfast-Forwarded": "p2"} if forwarded else AUTH
    cluster.add(KERNEL)
    async with serve_edge(cluster, clock=clock) as server, aiohttp.ClientSession() as session:
        url = f"{server.url}api/kernels/{KERNEL}"
        offset = frozen  # as if the process had been stopped: the clock went on, the beat did not
        for method, path in [("POST", "/interrupt"), ("POST", "/restart"), ("DELETE", "")]:
            async with session.request(method, url + path, headers={**who, **extra}) as answer:
                if acts:
                    assert answer.status in (200, 204)
                else:
                    assert answer.status == 503
                    assert answer.headers["Retry-After"] == "0"
                    assert "has not been carried out" in (await answer.json())["message"]
    assert [what for what, _, _ in cluster.calls] == (
        ["interrupt", "restart", "delete"] if acts else []
    )


async def test_a_proxy_is_itself_again_after_a_freeze(cluster: FakeCluster) -> None:
    offset = 0.0
    clock = ArrivalClock(lambda: boottime() + offset)
    cluster.add(KERNEL)
    async with serve_edge(cluster, clock=clock) as server, aiohttp.ClientSession() as session:
        offset = 30.0
        for attempt in itertools.count():
            url = f"{server.url}api/kernels/{KERNEL}/restart"
            async with session.post(url, headers=AUTH) as answer:
                if answer.status == 200:
                    break
                assert answer.status == 503
            assert attempt < 5000
    ((_, _, call),) = cluster.calls
    assert call.deadline is not None
    assert call.deadline == pytest.approx(boottime() + 30 + 10, abs=5)
