"""How often, and how fast, a stream dials again."""

from __future__ import annotations

import asyncio
import contextlib

from holdfast_client_shim.stream.lifeline import FREE_LOSSES, LossBudget
from support.fake_stream_keeper import FakeGateway
from support.stream_scene import execute, scene


def test_real_failures_are_never_made_to_wait() -> None:
    budget = LossBudget()
    assert all(budget.spend(second * 1.5) for second in range(200)), "a kill every 1.5 s"


def test_a_loop_is() -> None:
    budget = LossBudget()
    free = sum(budget.spend(0.01 * number) for number in range(200))
    assert free == FREE_LOSSES + 1, "two seconds earn one more"
    assert budget.spend(60.0), "and all is forgiven"


async def test_an_endpoint_that_resumes_and_breaks_again_and_again_is_not_stormed() -> None:
    """Each connection is of use, and each is cut as soon as it is. Unchecked, that is hundreds."""
    async with scene(1) as it:
        gateway = it.gateways[0]
        book = it.attach()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                while True:
                    await _connected(gateway)
                    gateway.abort_all()
                    await asyncio.sleep(0.001)
        assert FREE_LOSSES <= gateway.upgrades < FREE_LOSSES + 30
        it.stream.from_notebook(execute("print 3"))
        await book.wait_for(book.done(), 15)


async def _connected(gateway: FakeGateway) -> None:
    while not gateway.connections:  # noqa: ASYNC110 - the gateway has no event for it
        await asyncio.sleep(0.001)
