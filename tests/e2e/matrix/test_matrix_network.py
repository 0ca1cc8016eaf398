"""Rows of the network: black holes between machines, made with nft in namespaces of the test's own.

etcd, the notebook server and one proxy are at home; two proxies and the compute node are machines
of their own. No packet comes through a cut cable and nobody is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aiohttp
import pytest

from e2e.matrix.conftest import heal
from support.cluster import Cluster, JupyterServer
from support.matrix import node as holdings
from support.matrix.gateway import Gateway, gateways
from support.matrix.ledger import TRIES, Ledger, Pace
from support.matrix.open_cell import under_way
from support.netns import Network, Node
from support.notebook import notebook

pytestmark = pytest.mark.long

#: How long the node may be away before its kernels are dead; above what the other rows take.
GRACE = 20.0
LIFECYCLE_BAR = 5.0 + 2.0


@dataclass(frozen=True)
class Site:
    """The cluster, its machines, and the notebook server at home."""

    cluster: Cluster
    edges: list[Node]
    node: Node
    server: JupyterServer

    @property
    def held(self) -> holdings.Node:
        return holdings.Node(self.cluster.base / "launcher")

    def mend(self) -> None:
        for machine in (*self.edges, self.node):
            machine.mend()
        heal(self.cluster)


@pytest.fixture(scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Network() as network:
        edges = [network.node(f"edge{n}") for n in range(2)]
        node = network.node("node")
        cluster = Cluster(
            tmp_path_factory.mktemp("network"),
            proxies=3,
            proxy_toml=f"node_grace = {GRACE}",
            place=network,
            places={"proxy-0": edges[0], "proxy-1": edges[1], "launcher": node},
        ).start()
        try:
            yield Site(cluster, edges, node, cluster.jupyter())
        finally:
            cluster.stop()


@pytest.fixture
async def site(_site: Site) -> AsyncIterator[Site]:
    await asyncio.to_thread(_site.mend)
    yield _site
    await asyncio.to_thread(_site.mend)


@pytest.fixture
async def proxies(site: Site) -> AsyncIterator[list[Gateway]]:
    async with gateways(site.cluster.proxy_urls, site.cluster.token) as made:
        yield made


async def shown(server: JupyterServer, kernel_id: str) -> dict[str, object]:
    """What the notebook is told of the kernel's stream."""
    headers = {"Authorization": f"token {server.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{server.url}/api/holdfast/streams") as response,
    ):
        streams = (await response.json())["streams"]
    return next(dict(stream) for stream in streams if stream["kernel_id"] == kernel_id)


async def wait_shown(server: JupyterServer, kernel_id: str, state: str) -> dict[str, object]:
    async with asyncio.timeout(60):
        while (status := await shown(server, kernel_id))["state"] != state:  # noqa: ASYNC110 - see below
            await asyncio.sleep(0.05)  # asked as a page asks that opens now
    return status


@pytest.mark.timeout(180 + 60 * min(TRIES, Pace.SECONDS.value))
@pytest.mark.parametrize("fault", ["cut", "deafen", "mute"])
async def test_proxy_cut_off(
    site: Site, proxies: list[Gateway], ledger: Ledger, fault: str
) -> None:
    """The carrying proxy, if the cell is at home's own proxy that one is ended first; and what it
    owned is deleted at another one."""
    name = {"cut": "both ways", "deafen": "it hears nothing", "mute": "it is not heard"}[fault]
    label = f"proxy cut off, {name}"
    stream = ledger.row(label, "silence in the cell", Pace.SECONDS, bar=3.0)
    calls = ledger.row(label, "delete of a kernel it owned", Pace.SECONDS, bar=LIFECYCLE_BAR)
    cluster, server = site.cluster, site.server
    with stream as row, calls as lifecycle:
        async with notebook(server.url, server.token) as book:
            await book.run("pass")
            for number in range(row.tries):
                carrier = await leave_home(site, book.run)
                other = await proxies[carrier].start()
                owner = int((await proxies[carrier].row(other))["owner"].removeprefix("proxy-"))
                folder = cluster.base / f"proxy-{fault}"
                async with under_way(book, row, number, folder) as cell:
                    began = cell.mark()
                    for n in {carrier, owner} & {0, 1}:
                        getattr(site.edges[n], fault)()
                    free = next(n for n in (2, 0, 1) if n not in {carrier, owner})
                    await proxies[free].delete(other)
                    lifecycle.seconds.append(time.monotonic() - began)
                    await cell.caught_up()
                await asyncio.to_thread(site.mend)
            await book.rest("DELETE", "")


async def leave_home(site: Site, run: object) -> int:
    """Which proxy carries, once it is one that has a cable; moved off home's by ending that."""
    cluster = site.cluster
    carrier = await asyncio.to_thread(cluster.carrier, site.server.process.pid)
    if carrier == 2:
        cluster.proxies[2].stop()
        carrier = await asyncio.to_thread(cluster.carrier, site.server.process.pid)
        await asyncio.to_thread(cluster.start_proxy, 2)
    return carrier


@pytest.mark.timeout(180 + 60 * min(TRIES, Pace.SECONDS.value))
async def test_node_cut_off_and_back(site: Site, proxies: list[Gateway], ledger: Ledger) -> None:
    """Within the grace: said to be unreachable, and everything goes on when it is back."""
    told = ledger.row("node cut off", "until `unreachable` is shown", Pace.SECONDS, bar=5.0)
    back = ledger.row("node cut off", "back, until the cell goes on", Pace.SECONDS)
    with told as row, back as resumed:
        async with notebook(site.server.url, site.server.token) as book:
            await book.run("import os; pid = os.getpid()")
            for number in range(row.tries):
                folder = site.cluster.base / "node-cut"
                async with under_way(
                    book, row, number, folder, interval=0.02, measured=False
                ) as cell:
                    began = cell.mark()
                    site.node.cut()
                    status = await wait_shown(site.server, book.kernel_id, "unreachable")
                    row.seconds.append(time.monotonic() - began)
                    row.note = f"says {status['reason']!r}"
                    code, body, after = await proxies[0].once(
                        "POST", f"/api/kernels/{book.kernel_id}/restart"
                    )
                    assert (code, after is not None) == (503, True), body
                    code, models, _ = await proxies[2].once("GET", "/api/kernels")
                    assert code == 200
                    assert book.kernel_id in [model["id"] for model in models], "not dead: away"
                    mended = time.monotonic()
                    site.node.mend()
                    await cell.caught_up()
                    resumed.seconds.append(time.monotonic() - mended)
                assert (await book.run("print(pid == os.getpid())")).text == "True\n"
                await proxies[0].wait_row(book.kernel_id, state="idle")
            await book.rest("DELETE", "")


@pytest.mark.timeout(180 + 100 * min(TRIES, Pace.LONG.value))
async def test_node_gone_for_good(site: Site, proxies: list[Gateway], ledger: Ledger) -> None:
    """No evidence ever comes: dead after ``node_grace``, and the user is told why. When the node
    is back after all, what lives there of it is ended."""
    fault = f"node cut off for longer than node_grace ({GRACE:g} s here)"
    with ledger.row(fault, "until `dead` is shown", Pace.LONG, bar=GRACE + 25.0) as row:
        for number in range(row.tries):
            async with notebook(site.server.url, site.server.token) as book:
                flight = await book.execute("print('on'); import time; time.sleep(600)")
                await flight.wait_text("on\n")
                began = time.monotonic()
                site.node.cut()
                await flight.wait_done(90)
                await book.wait_status("dead")
                row.seconds.append(time.monotonic() - began)
                assert row.seconds[-1] >= GRACE, "not before its time"
                row.note = f"the cell says {flight.reply_content['evalue'][:90]!r}"
                assert flight.reply_content["status"] == "error"
                dead = await proxies[0].wait_row(book.kernel_id, state="dead")
                assert "could not be reached" in dead["reason"]
                code, body, _ = await proxies[0].once("GET", f"/api/kernels/{book.kernel_id}")
                assert code == 404 or body["execution_state"] == "dead", body
                assert site.held.processes(book.kernel_id), "it lives, out of reach"
                site.node.mend()
                if number == 0:  # at once; otherwise when it has been shown as dead for a minute
                    await proxies[0].delete(book.kernel_id)
                async with asyncio.timeout(90):
                    while site.held.processes(book.kernel_id):  # noqa: ASYNC110 - processes tell nobody
                        await asyncio.sleep(0.2)
            await asyncio.to_thread(site.mend)


@pytest.mark.timeout(180)
async def test_deleted_while_its_node_was_away(site: Site, proxies: list[Gateway]) -> None:
    """A delete that cannot be confirmed says 503, and is carried out when the node is back."""
    kernel = await proxies[0].start()
    assert site.held.processes(kernel)
    site.node.cut()
    code, body, after = await proxies[0].once("DELETE", f"/api/kernels/{kernel}")
    assert (code, after is not None) == (503, True), body
    site.node.mend()
    async with asyncio.timeout(60):
        while site.held.processes(kernel) or kernel in site.held.kernel_ids():  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.2)
    code, _, _ = await proxies[1].once("GET", f"/api/kernels/{kernel}")
    assert code == 404
