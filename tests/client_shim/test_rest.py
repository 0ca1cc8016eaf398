"""REST calls over endpoints that die: repeated where that is harmless, nowhere else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from holdfast_client_shim.gateway.endpoints import Endpoint, EndpointPool
from holdfast_client_shim.gateway.rest import Call, NoAnswer, RestCaller, Unanswered, Verdict, judge
from support.fake_stream_keeper import FakeGateway


@pytest.mark.parametrize(
    ("outcome", "told", "repeatable", "elsewhere"),
    [
        (200, False, True, False),
        (404, False, True, False),
        (500, False, True, False),
        (503, False, True, True),
        (503, True, False, True),
        (503, False, False, False),
        (502, False, True, True),
        (504, False, False, False),
        (NoAnswer("refused", sent=False), False, False, True),
        (NoAnswer("reset", sent=True), False, False, False),
        (NoAnswer("reset", sent=True), False, True, True),
    ],
)
def test_judge(outcome: int | NoAnswer, told: bool, repeatable: bool, elsewhere: bool) -> None:
    verdict = judge(outcome, told_to_retry=told, repeatable=repeatable)
    assert verdict is (Verdict.ELSEWHERE if elsewhere else Verdict.ANSWER)


@pytest.fixture
async def gateways() -> AsyncIterator[list[FakeGateway]]:
    made = [await FakeGateway({}).start() for _ in range(2)]
    yield made
    for gateway in made:
        await gateway.kill()


def caller(gateways: list[FakeGateway], *, holdfast: bool) -> tuple[RestCaller, EndpointPool]:
    pool = EndpointPool([Endpoint.of(gateway.url) for gateway in gateways])
    pool.is_holdfast = holdfast
    rest: RestCaller | None = None

    def lost(endpoint: Endpoint) -> None:
        pool.mark_down(endpoint, asyncio.get_running_loop().time())
        assert rest is not None
        rest.endpoint_lost(endpoint)

    rest = RestCaller(pool, arguments=lambda headers: {"headers": headers}, lost=lost)
    return rest, pool


def start(kernel_id: str) -> Call:
    return Call("POST", "/api/kernels", 5, f'{{"env": {{"KERNEL_ID": "{kernel_id}"}}}}')


async def test_a_refused_connection_leads_to_the_next(gateways: list[FakeGateway]) -> None:
    await gateways[0].kill()
    rest, pool = caller(gateways, holdfast=False)
    assert (await rest.call(start("k1"))).code == 201
    assert pool.order(asyncio.get_running_loop().time())[0].url == gateways[1].url


@pytest.mark.parametrize("holdfast", [False, True])
async def test_a_lost_answer_is_asked_for_again_only_at_holdfast(
    gateways: list[FakeGateway], holdfast: bool
) -> None:
    gateways[0].swallow_next_answer = True
    rest, _ = caller(gateways, holdfast=holdfast)
    if holdfast:
        assert (await rest.call(start("k1"))).code == 201
        ids = [call["headers"]["Holdfast-Request"] for g in gateways for _, _, call in g.calls]
        assert len(ids) == 2
        assert ids[0] == ids[1]
    else:
        with pytest.raises(Unanswered):
            await rest.call(start("k1"))
        assert gateways[1].calls == []


async def test_the_last_error_is_the_answer_when_time_is_up(gateways: list[FakeGateway]) -> None:
    for gateway in gateways:
        gateway.answer = (503, {"Retry-After": "0"})
    rest, _ = caller(gateways, holdfast=True)
    with pytest.raises(Unanswered) as raised:
        await rest.call(Call("GET", "/api/kernels", 0.5))
    assert raised.value.response is not None
    assert raised.value.response.code == 503
    assert all(gateway.count("GET", "/api/kernels") >= 2 for gateway in gateways)


async def test_nobody_there(gateways: list[FakeGateway]) -> None:
    for gateway in gateways:
        await gateway.kill()
    rest, _ = caller(gateways, holdfast=True)
    with pytest.raises(Unanswered, match=gateways[0].url) as raised:
        await rest.call(Call("GET", "/api/kernels", 0.3))
    assert raised.value.response is None


async def test_a_frozen_endpoint_is_left_when_somebody_finds_out(
    gateways: list[FakeGateway],
) -> None:
    rest, pool = caller(gateways, holdfast=True)
    gateways[0].freeze()
    asking = asyncio.ensure_future(rest.call(start("k1")))
    while not rest._waiting:  # noqa: ASYNC110 - has no event, and takes two turns of the loop
        await asyncio.sleep(0)
    rest.endpoint_lost(pool.endpoints[0])
    async with asyncio.timeout(0.9):  # before any probe
        assert (await asking).code == 201
    gateways[0].thaw()


async def test_a_frozen_endpoint_is_found_out_by_a_probe(gateways: list[FakeGateway]) -> None:
    rest, pool = caller(gateways, holdfast=True)
    gateways[0].freeze()
    async with asyncio.timeout(8):
        assert (await rest.call(start("k1"))).code == 201
    assert pool.is_down(pool.endpoints[0], asyncio.get_running_loop().time())
    gateways[0].thaw()


async def test_more_calls_than_tornado_has_places(gateways: list[FakeGateway]) -> None:
    rest, _ = caller(gateways, holdfast=True)
    gateways[0].freeze()
    calls = [rest.call(Call("GET", f"/api/kernels?{os.urandom(4).hex()}", 8)) for _ in range(30)]
    async with asyncio.timeout(8):
        answers = await asyncio.gather(*calls)
    assert {answer.code for answer in answers} == {200}
    gateways[0].thaw()


async def test_an_error_does_not_tell_the_password_in_a_url(gateways: list[FakeGateway]) -> None:
    for gateway in gateways:
        await gateway.kill()
    url = gateways[0].url.replace("http://", "http://ada:hunter2@")
    rest = RestCaller(
        EndpointPool([Endpoint.of(url)]),
        arguments=lambda headers: {"headers": headers},
        lost=lambda endpoint: None,
    )
    with pytest.raises(Unanswered) as failed:
        await rest.call(Call("GET", "/api/kernels", 0.3))
    assert "127.0.0.1" in str(failed.value)
    assert "hunter2" not in str(failed.value)
