"""The event loop's lag, by a clock and a sleep that the test holds."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_proxy.metrics.loop_lag import LOOK_SECONDS, watch_loop


async def test_what_a_sleep_took_longer_is_the_lag() -> None:
    now, late = 0.0, iter([0.0, 0.25, 30.0])
    seen: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        try:
            now += seconds + next(late)
        except StopIteration:
            raise asyncio.CancelledError from None

    with pytest.raises(asyncio.CancelledError):
        await watch_loop(seen.append, clock=lambda: now, sleep=sleep)
    assert seen == [pytest.approx(0.0), pytest.approx(0.25), pytest.approx(30.0)]
    assert LOOK_SECONDS <= 0.1
