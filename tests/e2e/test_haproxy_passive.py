"""Active-passive behind one address: HAProxy takes the leader, and between two leaders the living.

The file from docs/howto has a second backend for that moment; here leaders die one after another.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from e2e.test_haproxy import browser, check_at_least_once
from support.cluster import Cluster, http_get
from support.figures import report
from support.haproxy import HAProxy
from support.matrix.gateway import Gateway, gateways
from support.printer import PrinterCell
from support.processes import wait_until

pytestmark = pytest.mark.long

KILLS = max(1, min(int(os.environ.get("HOLDFAST_KILLS", "2")), 10))
#: Enough for a lease to run out in mid-cell: at 10 ms each.
LINES = 1500


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = tmp_path_factory.mktemp("passive")
    cluster = Cluster(base, proxies=3, mode="active-passive").start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def balancer(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    balancer = HAProxy(tmp_path_factory.mktemp("ha"), cluster.proxy_urls)
    try:
        yield balancer.start()
    finally:
        balancer.stop()


def leader(cluster: Cluster) -> int:
    """Which proxy leads, by the word of one that is not led itself; waits for one."""

    def one() -> list[int]:
        return [n for n, url in enumerate(cluster.proxy_urls) if role(cluster, url) == "leader"]

    return wait_until(one, seconds=60, what="a leader")[0]


def role(cluster: Cluster, url: str) -> str:
    status, body = http_get(f"{url}/holdfast/v1/proxy", token=cluster.token)
    return str(json.loads(body)["role"]) if status == 200 else ""


def wait_one_ready(balancer: HAProxy, n: int) -> None:
    """HAProxy sends everything to the leader, and knows all as living."""
    expected = ["UP" if number == n else "DOWN" for number in range(3)]
    wait_until(
        lambda: (
            list(balancer.states().values()) == expected
            and list(balancer.states("holdfast_alive").values()) == ["UP"] * 3
        ),
        seconds=30,
        what=f"proxy {n} alone as ready; {balancer.states()} {balancer.states('holdfast_alive')}",
    )


async def ask_all_the_time(gateway: Gateway, stop: asyncio.Event) -> tuple[int, list[object]]:
    """Lists, one after another: how many answers, and those that no client should see."""
    asked, wrong = 0, []
    while not stop.is_set():
        status, body, _ = await gateway.once("GET", "/api/kernels")
        asked += 1
        if status not in (200, 503):
            wrong.append((status, body))
        await asyncio.sleep(0.02)
    return asked, wrong


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> Iterator[None]:
    """All proxies are there after a test, whatever became of it."""
    yield
    for n, proxy in enumerate(cluster.proxies):
        if not proxy.alive:
            cluster.start_proxy(n)


@pytest.mark.timeout(240 + 60 * KILLS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
async def test_leaders_go_in_turn_behind_one_address(
    cluster: Cluster, balancer: HAProxy, how: signal.Signals
) -> None:
    """The cell goes on by whoever lives; a start asked for at once is carried out by the next
    leader; then HAProxy sends everything to that one."""
    silences, starts, doubled = [], [], 0
    await asyncio.to_thread(wait_one_ready, balancer, await asyncio.to_thread(leader, cluster))
    async with (
        gateways([balancer.url], cluster.token, balanced=True) as (gateway,),
        browser(balancer, cluster.token) as (book, _),
    ):
        await book.run("pass")
        stop = asyncio.Event()
        asking = asyncio.create_task(ask_all_the_time(gateway, stop))
        for number in range(KILLS):
            led = await asyncio.to_thread(leader, cluster)
            side = cluster.base / f"passive-{how.name}.side"
            cell = PrinterCell(number, LINES, side, interval=0.01)
            execution = await book.execute(cell.code)
            await execution.wait_text(f"{number}:30\n")
            moment = time.monotonic()
            cluster.proxies[led].signal(how)
            kernel = await gateway.start()
            starts.append(time.monotonic() - moment)
            await gateway.delete(kernel)
            await execution.wait_done()
            silences.append(execution.longest_silence(moment))
            doubled += check_at_least_once(execution, cell)
            await asyncio.to_thread(cluster.proxies[led].wait, 20)
            await asyncio.to_thread(cluster.start_proxy, led)
            following = await asyncio.to_thread(leader, cluster)
            assert following != led
            await asyncio.to_thread(wait_one_ready, balancer, following)
        stop.set()
        asked, wrong = await asking
        assert wrong == [], "502 and 504 are the kernel's death to JupyterLab"
        assert asked > 20
        await book.rest("DELETE", "")
    name = f"leader {how.name} behind HAProxy, active-passive, plain client"
    report(name, silences, lost=0, doubled=doubled)
    report(f"{name}: a start asked for at once", starts)
    assert max(silences) <= 5.0
    assert max(starts) <= 30.0
