"""A kernel says more than its log may hold while a client is frozen or away.

The log's limit is the launcher's setting, the losses are real: they are shown in the cell that
lost something and count what is missing; the cell ends, the kernel lives, the next cell is whole.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from _pytest.mark.structures import ParameterSet

from support.cluster import Cluster, JupyterServer
from support.notebook import Execution, Notebook, notebook
from support.processes import wait_until
from support.small_disk import small_disk

pytestmark = pytest.mark.e2e

SMALL_LOG = "log_memory_bytes = 65536\nlog_disk_bytes = 262144\n"
#: Outputs of a cell and characters of each. What TCP holds between keeper, proxy and a frozen
#: client is up to 20 MB, so a cell that is to lose something then says much more.
FEW, MANY = 60, 500
WIDTH = 100_000
LOST = re.compile(r"^holdfast: (\d+) messages lost: (.+)$", re.MULTILINE)


def burst(count: int) -> str:
    return (
        "from IPython.display import publish_display_data as show\n"
        f"for i in range({count}):\n"
        f"    show({{'text/plain': '%06d' % i + 'x' * {WIDTH}}})\n"
    )


@dataclass(frozen=True)
class Client:
    """How a user is connected: through the shim, or by a plain websocket."""

    kind: str
    url: str
    token: str
    server: JupyterServer | None
    #: How many outputs make a loss certain.
    count: int

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Notebook]:
        async with notebook(self.url, self.token, legacy=self.kind == "legacy") as book:
            await book.run("kept = 'kept'")
            yield book

    async def go(self, book: Notebook) -> None:
        """Read nothing more: the notebook server freezes, the plain client's connection ends."""
        if self.server is not None:
            self.server.process.signal(signal.SIGSTOP)
        else:
            await book.disconnect()

    async def come_back(self, book: Notebook) -> None:
        if self.server is not None:
            self.server.process.signal(signal.SIGCONT)
        else:
            await book.connect(legacy=self.kind == "legacy")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One whose kernels may keep 320 KiB of output."""
    base = tmp_path_factory.mktemp("full")
    cluster = Cluster(base, proxies=1, launcher_toml=SMALL_LOG).start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> JupyterServer:
    return cluster.jupyter()


@pytest.fixture
def client(request: pytest.FixtureRequest, cluster: Cluster) -> Client:
    """Of the kind that the test's parameter names."""
    kind: str = request.param
    if kind != "shim":
        return Client(kind, cluster.proxy_urls[0], cluster.token, None, FEW)
    server: JupyterServer = request.getfixturevalue("server")
    return Client(kind, server.url, server.token, server, MANY)


def long(*kinds: str) -> list[ParameterSet]:
    """Parameters that only `make promises` runs."""
    return [pytest.param(kind, marks=pytest.mark.long) for kind in kinds]


async def wait_idle(cluster: Cluster, kernel_id: str) -> None:
    """Until the kernel has nothing to do, by the word of the proxy and not of the client."""
    headers = {"Authorization": f"token {cluster.token}"}
    url = f"{cluster.proxy_urls[0]}/api/kernels/{kernel_id}"
    async with asyncio.timeout(60), aiohttp.ClientSession(headers=headers) as http:
        while True:
            async with http.get(url) as response:
                model = await response.json()
                assert response.status == 200, model
            if model["execution_state"] == "idle":
                return
            await asyncio.sleep(0.05)


async def lose_output(
    cluster: Cluster, client: Client, book: Notebook, until: Callable[[], bool] = lambda: True
) -> Execution:
    """A cell of which the client hears the beginning, and of whose rest the most is dropped: by
    the time that the kernel is idle, or ``until``."""
    execution = await book.execute(
        f"import time; print('begun'); time.sleep(0.3)\n{burst(client.count)}"
    )
    await execution.wait_text("begun\n")
    await client.go(book)
    try:
        await wait_idle(cluster, book.kernel_id)
        await asyncio.to_thread(wait_until, until, seconds=30, what="losses")
    finally:
        await client.come_back(book)
    return await execution.wait_done()


def check_losses(execution: Execution, count: int, reason: str) -> int:
    """The gap is in the cell, and counts what is missing of ``count`` outputs; how many besides."""
    losses = LOST.findall(execution.stderr)
    assert losses, execution.stderr
    assert {why for _, why in losses} == {reason}
    said = sum(int(count) for count, _ in losses)
    shown = [
        int(message.content_dict()["data"]["text/plain"][:6])
        for message in execution.of_type("display_data")
    ]
    assert shown == sorted(set(shown)), "out of order or doubled"
    missing = count - len(shown)
    assert missing > count // 10
    return said - missing


def check_end(execution: Execution, *, besides: int) -> None:
    """The real reply, or one that says that it was lost ``besides`` output. A kernel sends replies
    and output by separate sockets, so the reply may be older than some output."""
    reply = execution.reply_content
    if reply["status"] == "ok":
        assert besides == 0
    else:
        assert (reply["ename"], besides) == ("HoldfastGap", 1)
        assert f"{LOST.findall(execution.stderr)[-1][0]} messages lost" in reply["evalue"]


async def check_the_kernel_lives(book: Notebook) -> None:
    for number in range(3):
        cell = await book.run(f"print(kept, {number})")
        assert (cell.text, cell.stderr) == (f"kept {number}\n", "")
        assert cell.reply_content["status"] == "ok"


@pytest.mark.parametrize("client", ["v1", "shim", *long("legacy")], indirect=True)
async def test_the_gap_is_shown_and_the_cell_ends(cluster: Cluster, client: Client) -> None:
    async with client.open() as book:
        execution = await lose_output(cluster, client, book)
        check_end(execution, besides=check_losses(execution, client.count, "log full"))
        await check_the_kernel_lives(book)
        await book.rest("DELETE", "")


@pytest.mark.parametrize("client", ["legacy", *long("v1", "shim")], indirect=True)
async def test_a_reply_in_the_gap_is_an_error_that_says_so(
    cluster: Cluster, client: Client
) -> None:
    """Another notebook on the same kernel says so much that the first one's reply is dropped."""
    async with client.open() as book:
        execution = await book.execute("import time; print('begun'); time.sleep(0.5)")
        queued = await book.execute("print('queued')")
        await execution.wait_text("begun\n")
        await client.go(book)
        try:
            other = (cluster.proxy_urls[0], cluster.token)
            async with notebook(*other, kernel_id=book.kernel_id) as neighbour:
                await neighbour.run(burst(client.count))
            await wait_idle(cluster, book.kernel_id)
        finally:
            await client.come_back(book)
        for cell in (execution, queued):
            await cell.wait_done()
        if client.server is None:  # TCP holds nothing for who is away
            for cell in (execution, queued):
                assert LOST.search(cell.stderr), cell.stderr
                reply = cell.reply_content
                assert (reply["status"], reply["ename"]) == ("error", "HoldfastGap")
                assert "log full" in reply["evalue"]
        await check_the_kernel_lives(book)
        await book.rest("DELETE", "")


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["shim", "v1", "legacy"])
async def test_a_full_disk_is_a_gap_and_the_kernel_lives(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    """The node's disk has 6 MiB, the log may have 1 GiB: the disk is full long before it."""
    base = tmp_path_factory.mktemp("disk")
    cluster = Cluster(base, proxies=1, launcher_toml="log_memory_bytes = 65536\n")
    kernels = base / "launcher" / "kernels"
    kernels.mkdir(mode=0o700, parents=True)
    with small_disk(kernels, 6 * 1024 * 1024) as disk:
        cluster.start()
        try:
            server = cluster.jupyter() if kind == "shim" else None
            url, token = (
                (server.url, server.token)
                if server is not None
                else (cluster.proxy_urls[0], cluster.token)
            )
            client = Client(kind, url, token, server, count=MANY)
            async with client.open() as book:
                for hog in (None, disk.fill):
                    if hog is not None:  # not one byte is left, for a line in a log neither
                        hog()
                    floor = keeper_log(kernels / book.kernel_id)["floor"]
                    execution = await lose_output(
                        cluster,
                        client,
                        book,
                        lambda at=floor: (
                            keeper_log(kernels / book.kernel_id)["floor"] > at + MANY // 2
                        ),
                    )
                    check_losses(execution, client.count, "the log's disk failed")
                    await check_the_kernel_lives(book)
                await check_control_on_a_full_disk(book)
        finally:
            cluster.stop()


def keeper_log(directory: Path) -> dict[str, int]:
    """What the keeper itself says of its log: head, floor, bytes."""
    file = json.loads((directory / "keeper.json").read_text())
    endpoint = file["endpoint"]
    link = http.client.HTTPConnection(endpoint["host"], endpoint["port"], timeout=10)
    try:
        link.request("GET", "/v1/kernel", headers={"Authorization": f"Bearer {file['credential']}"})
        return dict(json.loads(link.getresponse().read())["log"])
    finally:
        link.close()


async def check_control_on_a_full_disk(book: Notebook) -> None:
    """Interrupt and delete do without the disk."""
    hanging = await book.execute("import time; print('waits'); time.sleep(60)")
    await hanging.wait_text("waits\n")
    status, _ = await book.rest("POST", "/interrupt")
    assert status == 204
    assert (await hanging.wait_done()).reply_content["ename"] == "KeyboardInterrupt"
    await check_the_kernel_lives(book)
    status, answer = await book.rest("DELETE", "")
    assert status == 204, answer
    status, _ = await book.rest("GET", "")
    assert status == 404
