"""Behind a gateway that is not Holdfast: a real Jupyter Kernel Gateway, in `make shim-oldest`.

It has no resumable stream and one process for all, so less can be promised: the shim reconnects,
remembers, and says what is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest

from support.cluster import JupyterServer
from support.kernel_gateway import Gateway, kernel_gateway
from support.notebook import Notebook, notebook
from support.processes import wait_until
from support.tcp_line import TcpLine

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with kernel_gateway(tmp_path_factory.mktemp("kernel-gateway")) as running:
        yield running


def server_for(folder: Path, gateway: Gateway, url: str, *options: str) -> JupyterServer:
    class Server(JupyterServer):
        pass

    Server.options = options
    return Server(SimpleNamespace(base=folder, token=gateway.token), "jupyter", url)


async def greet(book: Notebook) -> None:
    """As every front end begins."""
    greeting = await book.send("kernel_info_request", {})
    await greeting.wait_for(lambda: greeting.reply is not None)


async def hear_again(book: Notebook) -> None:
    """Until status messages arrive again after a restart.

    Kernel Gateway keeps its SUB socket over a restart, and ZeroMQ joins the new kernel when it
    gets to it: what the kernel publishes before is nobody's. JupyterLab therefore opens a new
    websocket after each restart, for which the gateway nudges the kernel; this does the same by
    hand, on the websocket that is there.
    """
    async with asyncio.timeout(60):
        while True:
            greeting = await book.send("kernel_info_request", {})
            await greeting.wait_for(lambda asked=greeting: asked.reply is not None)
            try:
                await greeting.wait_done(1)
            except TimeoutError:
                continue
            return


async def come_back(book: Notebook) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await book.connect()
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
                continue
            return await greet(book)


async def lives(gateway: Gateway, kernel_id: str) -> bool:
    """Asked of the gateway itself, which gives no list unless it is told to."""
    headers = {"Authorization": f"token {gateway.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{gateway.url}/api/kernels/{kernel_id}") as response,
    ):
        assert response.status in (200, 404)
        return response.status == 200


async def test_cells_calls_and_a_broken_line(tmp_path: Path, gateway: Gateway) -> None:
    line = TcpLine(int(gateway.url.rsplit(":", 1)[1]))
    await line.open()
    server = server_for(tmp_path, gateway, f"http://127.0.0.1:{line.port}")
    try:
        await asyncio.to_thread(server.start)
        async with notebook(server.url, server.token) as book:
            assert (await book.run("kept = 1; print('in')")).text == "in\n"
            sleeper = await book.execute("import time\nprint('x')\ntime.sleep(60)")
            await sleeper.wait_text("x\n")
            assert (await book.rest("POST", "/interrupt"))[0] == 204
            await sleeper.wait_done()
            assert sleeper.reply_content["ename"] == "KeyboardInterrupt"
            await line.drop()
            # what is sent before the break is noticed is lost: nobody can tell at this gateway
            await asyncio.to_thread(
                wait_until, lambda: "closed without a word" in server.process.log.read_text(),
                seconds=30, what="the break",
            )  # fmt: skip
            await greet(book)
            assert (await book.run("print('kept', kept)")).text == "kept 1\n"
            assert not book.closed.is_set(), "the notebook saw nothing of it"
            assert (await book.rest("POST", "/restart"))[0] == 200
            await hear_again(book)
            assert (await book.run("print('kept' in dir())")).text == "False\n"
            assert (await book.rest("DELETE", ""))[0] == 204
    finally:
        await asyncio.to_thread(server.process.stop)
        await line.cut()


async def test_the_server_is_killed_and_finds_its_kernel_again(
    tmp_path: Path, gateway: Gateway
) -> None:
    """And when it is stopped, its kernels end with it, as everybody expects there."""
    server = server_for(tmp_path, gateway, gateway.url)
    try:
        await asyncio.to_thread(server.start)
        async with notebook(server.url, server.token) as book:
            await book.run("kept = 1")
            await asyncio.to_thread(server.process.kill)
            await asyncio.to_thread(server.start)
            await come_back(book)
            assert (await book.run("print('kept', kept)")).text == "kept 1\n"
        assert await lives(gateway, book.kernel_id)
        await asyncio.to_thread(server.process.stop)
        assert not await lives(gateway, book.kernel_id)
    finally:
        await asyncio.to_thread(server.process.stop)


async def test_kernels_stay_when_the_server_is_told_so(tmp_path: Path, gateway: Gateway) -> None:
    option = "--HoldfastGatewayClient.shutdown_on_exit=False"
    server = server_for(tmp_path, gateway, gateway.url, option)
    try:
        await asyncio.to_thread(server.start)
        async with notebook(server.url, server.token) as book:
            await book.run("kept = 1")
            await asyncio.to_thread(server.process.stop)
            assert await lives(gateway, book.kernel_id)
            await asyncio.to_thread(server.start)
            await come_back(book)
            assert (await book.run("print('kept', kept)")).text == "kept 1\n"
            assert (await book.rest("DELETE", ""))[0] == 204
    finally:
        await asyncio.to_thread(server.process.stop)


async def test_a_gateway_that_dies_takes_its_kernels_and_the_notebook_is_told(
    tmp_path: Path, gateway: Gateway
) -> None:
    server = server_for(tmp_path, gateway, gateway.url)
    try:
        await asyncio.to_thread(server.start)
        async with notebook(server.url, server.token) as book:
            cell = await book.execute("import time\nprint('x', flush=True)\ntime.sleep(5)")
            await cell.wait_text("x\n")
            # SIGTERM: it ends its kernels; the next one of it knows nothing of them
            await asyncio.to_thread(gateway.process.stop)
            gateway.process.start()
            await asyncio.to_thread(gateway.wait_ready)
            await cell.wait_done()
            assert cell.reply_content["status"] == "error"
            await asyncio.wait_for(book.closed.wait(), 30)
            assert book.states()[-1] == "dead"
        async with notebook(server.url, server.token) as another:
            assert (await another.run("print('new')")).text == "new\n"
            assert (await another.rest("DELETE", ""))[0] == 204
    finally:
        await asyncio.to_thread(server.process.stop)
