"""20,000 outputs of one cell arrive complete and in order, by every kind of client."""

from __future__ import annotations

import asyncio

import pytest

from support.cluster import Cluster, JupyterServer
from support.notebook import Execution, notebook

pytestmark = pytest.mark.e2e

COUNT = 20_000
BURST = (
    "from IPython.display import publish_display_data as show\n"
    f"for i in range({COUNT}):\n"
    "    show({'text/plain': '%06d' % i + 'x' * 94})\n"
)


def shown(execution: Execution) -> list[int]:
    return [
        int(message.content_dict()["data"]["text/plain"][:6])
        for message in execution.of_type("display_data")
    ]


def check(execution: Execution) -> None:
    assert shown(execution) == list(range(COUNT))
    assert execution.reply_content["status"] == "ok"
    assert execution.stderr == ""


async def test_through_the_shim(cluster: Cluster, server: JupyterServer) -> None:
    async with notebook(server.url, server.token) as book:
        check(await book.run(BURST))
        await book.rest("DELETE", "")


async def test_through_the_shim_with_a_kill_in_the_middle(
    cluster: Cluster, server: JupyterServer
) -> None:
    async with notebook(server.url, server.token) as book:
        execution = await book.execute(BURST)
        await execution.wait_for(lambda: len(execution.messages) > COUNT // 3)
        carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)
        cluster.proxies[carrier].kill()
        check(await execution.wait_done())
        await asyncio.to_thread(cluster.start_proxy, carrier)
        await book.rest("DELETE", "")


@pytest.mark.parametrize("legacy", [False, True], ids=["v1", "legacy"])
async def test_plain_client(cluster: Cluster, legacy: bool) -> None:
    async with notebook(cluster.proxy_urls[0], cluster.token, legacy=legacy) as book:
        check(await book.run(BURST))
        await book.rest("DELETE", "")


@pytest.mark.parametrize("legacy", [False, True], ids=["v1", "legacy"])
async def test_plain_client_that_comes_back_after_a_kill(cluster: Cluster, legacy: bool) -> None:
    """It reconnects with the same session to the other proxy. What was on its way when the
    connection broke may come twice (nobody acknowledges on this leg); nothing may be missing."""
    async with notebook(cluster.proxy_urls[0], cluster.token, legacy=legacy) as book:
        execution = await book.execute(BURST)
        await execution.wait_for(lambda: len(execution.messages) > COUNT // 3)
        cluster.proxies[0].kill()
        await book.closed.wait()
        book.move(cluster.proxy_urls[1])
        await book.connect(legacy=legacy)
        # idle is the last of it, whichever connection it came by
        await execution.wait_for(lambda: execution.idle)
        numbers = shown(execution)
        doubles = len(numbers) - COUNT
        firsts = list(dict.fromkeys(numbers))
        assert firsts == list(range(COUNT))
        assert execution.stderr == ""
        assert doubles < COUNT // 3, f"{doubles} came twice"
        await asyncio.to_thread(cluster.start_proxy, 0)
        await book.rest("DELETE", "")
