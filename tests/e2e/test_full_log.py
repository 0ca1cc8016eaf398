"""A kernel says more than its log may hold while a client is frozen or away.

The log's limit is the launcher's setting, the losses are real: they are shown in the cell that
lost something and count what is missing; the cell ends, the kernel lives, the next cell is whole.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from support.cluster import Cluster, JupyterServer
from support.notebook import Execution, Notebook, notebook
from support.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.e2e

SMALL_LOG = "log_memory_bytes = 65536\nlog_disk_bytes = 262144\n"
#: What TCP holds between keeper, proxy and a frozen client is up to 20 MB; much more is said.
COUNT = 500
WIDTH = 100_000
LOST = re.compile(r"^holdfast: (\d+) messages lost: (.+)$", re.MULTILINE)


def burst(count: int = COUNT, width: int = WIDTH) -> str:
    return (
        "from IPython.display import publish_display_data as show\n"
        f"for i in range({count}):\n"
        f"    show({{'text/plain': '%06d' % i + 'x' * {width}}})\n"
    )


@dataclass(frozen=True)
class Client:
    """How a user is connected: through the shim, or by a plain websocket."""

    kind: str
    url: str
    token: str
    server: JupyterServer | None

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
def clients(cluster: Cluster) -> dict[str, Client]:
    server = cluster.jupyter()
    plain = (cluster.proxy_urls[0], cluster.token, None)
    return {
        "shim": Client("shim", server.url, server.token, server),
        "v1": Client("v1", *plain),
        "legacy": Client("legacy", *plain),
    }


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


async def lose_output(cluster: Cluster, client: Client, book: Notebook) -> Execution:
    """A cell of which the client hears the beginning, and of whose rest the most is dropped."""
    execution = await book.execute(f"import time; print('begun'); time.sleep(0.3)\n{burst()}")
    await execution.wait_text("begun\n")
    await client.go(book)
    try:
        await wait_idle(cluster, book.kernel_id)
    finally:
        await client.come_back(book)
    return await execution.wait_done()


def check_losses(execution: Execution, reason: str) -> int:
    """The gap is in the cell, and counts what is missing; returns the count."""
    losses = LOST.findall(execution.stderr)
    assert losses, execution.stderr
    assert {why for _, why in losses} == {reason}
    said = sum(int(count) for count, _ in losses)
    shown = [
        int(message.content_dict()["data"]["text/plain"][:6])
        for message in execution.of_type("display_data")
    ]
    assert shown == sorted(set(shown)), "out of order or doubled"
    assert said >= COUNT - len(shown) > COUNT // 4
    return said


def check_end(execution: Execution, *, lost: int) -> None:
    """The real reply, or one that says that it was lost. A kernel sends replies and output by
    separate sockets, so the reply may be older than some output; ``lost``: besides output."""
    reply = execution.reply_content
    if reply["status"] == "ok":
        assert lost == 0
    else:
        assert (reply["ename"], lost) == ("HoldfastGap", 1)
        assert f"{LOST.findall(execution.stderr)[-1][0]} messages lost" in reply["evalue"]


async def check_the_kernel_lives(book: Notebook) -> None:
    for number in range(3):
        cell = await book.run(f"print(kept, {number})")
        assert (cell.text, cell.stderr) == (f"kept {number}\n", "")
        assert cell.reply_content["status"] == "ok"


@pytest.mark.parametrize("kind", ["shim", "v1", "legacy"])
async def test_the_gap_is_shown_and_the_cell_ends(
    cluster: Cluster, clients: dict[str, Client], kind: str
) -> None:
    client = clients[kind]
    async with client.open() as book:
        execution = await lose_output(cluster, client, book)
        said = check_losses(execution, "log full")
        check_end(execution, lost=said - (COUNT - len(execution.of_type("display_data"))))
        await check_the_kernel_lives(book)
        await book.rest("DELETE", "")


@pytest.mark.parametrize("kind", ["shim", "v1", "legacy"])
async def test_a_reply_in_the_gap_is_an_error_that_says_so(
    cluster: Cluster, clients: dict[str, Client], kind: str
) -> None:
    """Another notebook on the same kernel says so much that the first one's reply is dropped."""
    client = clients[kind]
    async with client.open() as book:
        execution = await book.execute("import time; print('begun'); time.sleep(0.5)")
        queued = await book.execute("print('queued')")
        await execution.wait_text("begun\n")
        await client.go(book)
        try:
            other = (cluster.proxy_urls[0], cluster.token)
            async with notebook(*other, kernel_id=book.kernel_id) as neighbour:
                shown = await neighbour.run(burst())
                assert shown.reply_content["status"] == "ok"
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
            client = Client(kind, url, token, server)
            async with client.open() as book:
                execution = await lose_output(cluster, client, book)
                check_losses(execution, "the log's disk failed")
                await check_the_kernel_lives(book)
                await check_control_on_a_full_disk(book, disk)
        finally:
            cluster.stop()


async def check_control_on_a_full_disk(book: Notebook, disk: SmallDisk) -> None:
    """Not a byte is left: cells, interrupts and the delete do without."""
    disk.fill()
    assert disk.free == 0
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
