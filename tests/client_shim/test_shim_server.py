"""A stock Jupyter Server with nothing but ``--gateway-url``, against fake gateways."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from holdfast_protocol.jupyter import V1_SUBPROTOCOL
from support.cluster import clean_env, http_status
from support.fake_stream_keeper import FakeGateway, FakeKernel
from support.notebook import notebook
from support.processes import ManagedProcess, free_port

TOKEN = "a-gateway-token"


@dataclass
class Server:
    url: str
    token: str
    process: ManagedProcess
    gateways: list[FakeGateway]
    kernels: dict[str, FakeKernel]

    def log(self) -> str:
        return self.process.log.read_text()

    async def rest(self, method: str, path: str) -> tuple[int, str]:
        headers = {"Authorization": f"token {self.token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, self.url + path) as response,
        ):
            return response.status, await response.text()

    async def wait_up(self) -> None:
        while True:
            assert self.process.alive, self.process.tail()
            status = await asyncio.to_thread(http_status, f"{self.url}/api", seconds=30)
            if status == 200:
                return

    async def wait_log(self, text: str, seconds: float = 20) -> None:
        await eventually(lambda: text in self.log(), seconds, f"{text!r} in the log")


async def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.02)


def command_for(url: str, token: str, root: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "jupyter_server", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={url.rsplit(':', 1)[1]}", "--ServerApp.port_retries=0",
        "--no-browser", "--allow-root", f"--ServerApp.root_dir={root}",
        f"--IdentityProvider.token={token}", *more,
    ]  # fmt: skip


@asynccontextmanager
async def jupyter(
    folder: Path, gateways: list[FakeGateway], *more: str, **variables: str
) -> AsyncIterator[Server]:
    """Jupyter Server in a process of its own, ready to answer."""
    url, token = f"http://127.0.0.1:{free_port()}", secrets.token_urlsafe(8)
    env = clean_env(
        JUPYTER_CONFIG_DIR=str(folder / "config"), JUPYTER_DATA_DIR=str(folder / "data"),
        JUPYTER_RUNTIME_DIR=str(folder / "runtime"), JUPYTER_GATEWAY_AUTH_TOKEN=TOKEN,
        **variables,
    )  # fmt: skip
    options = [f"--gateway-url={gateways[0].url}"] if gateways else []
    command = command_for(url, token, folder, *options, *more)
    process = ManagedProcess("jupyter", command, log=folder / "server.log", env=env)
    server = Server(url, token, process, gateways, gateways[0].kernels if gateways else {})
    process.start()
    try:
        await server.wait_up()
        yield server
    finally:
        await asyncio.to_thread(process.stop)


@pytest.fixture
async def gateways() -> AsyncIterator[list[FakeGateway]]:
    kernels: dict[str, FakeKernel] = {}
    made = [await FakeGateway(kernels).start() for _ in range(2)]
    for gateway in made:
        gateway.peers = made
    yield made
    for gateway in made:
        await gateway.kill()


def numbers(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


def carrying(gateways: list[FakeGateway]) -> FakeGateway:
    return next(gateway for gateway in gateways if gateway.connections)


@pytest.mark.e2e
@pytest.mark.parametrize("legacy", [False, True])
async def test_notebook_survives_its_gateway(
    tmp_path: Path, gateways: list[FakeGateway], legacy: bool
) -> None:
    """Only one URL is configured; the second endpoint is learned. Also REST moves."""
    async with jupyter(tmp_path, gateways) as server:
        async with notebook(server.url, server.token, legacy=legacy) as book:
            kernel = server.kernels[book.kernel_id]
            await book.run("print 3")
            await server.wait_log(f"learned of the gateway {gateways[1].url}")
            execution = await book.execute("print 300 0.002")
            await execution.wait_text("50\n")
            await carrying(gateways).kill()
            await execution.wait_done()
            assert execution.text == numbers(300)
            assert kernel.executed == ["print 3", "print 300 0.002"]
            assert (await book.rest("GET", ""))[0] == 200
            assert (await book.rest("POST", "/interrupt"))[0] == 204
            assert (await book.rest("POST", "/restart"))[0] == 200
            big = await book.run("big 3000000")
            (shown,) = big.of_type("display_data")
            assert len(shown.buffers[0]) == 3_000_000
            asked = await book.execute("input", allow_stdin=True)
            await asked.wait_for(lambda: bool(asked.of_type("input_request")))
            (request,) = asked.of_type("input_request")
            await book.send("input_reply", {"value": "seven"}, channel="stdin",
                            parent=request.header_dict)  # fmt: skip
            await asked.wait_done()
            assert asked.text == "got seven\n"
            await kernel.wait_for(lambda: kernel.acknowledged == kernel.log.index.head)
        assert "holdfast: active" in server.log()
        assert TOKEN not in server.log()
    last = gateways[1].calls
    (interrupt,) = [call for _, path, call in last if path.endswith("/interrupt")]
    assert interrupt["headers"]["Holdfast-After"] == [f"{book.session_id}:2"]
    assert 0 < float(interrupt["headers"]["Holdfast-Max-Age"][0]) <= 10
    assert interrupt["headers"]["Holdfast-Request"]
    assert gateways[1].authorizations == {f"token {TOKEN}"}


@pytest.mark.e2e
async def test_start_is_repeated_and_starts_once(
    tmp_path: Path, gateways: list[FakeGateway]
) -> None:
    async with jupyter(tmp_path, gateways) as server:
        await server.rest("GET", "/api/kernelspecs")
        await server.wait_log("learned of the gateway")
        for gateway in gateways:
            gateway.swallow_next_answer = True
        async with notebook(server.url, server.token) as book:
            starts = [call for gateway in gateways for method, path, call in gateway.calls
                      if (method, path) == ("POST", "/api/kernels")]  # fmt: skip
            assert len(starts) >= 2
            assert {call["body"]["env"]["KERNEL_ID"] for call in starts} == {book.kernel_id}
            assert len({call["headers"]["Holdfast-Request"][0] for call in starts}) == 1
            assert list(server.kernels) == [book.kernel_id]


@pytest.mark.e2e
async def test_kernel_is_forgotten_on_404_and_nothing_else(
    tmp_path: Path, gateways: list[FakeGateway]
) -> None:
    async with jupyter(tmp_path, gateways) as server, notebook(server.url, server.token) as book:
        await book.run("print 1")
        for gateway in gateways:
            gateway.answer = (503, {"Retry-After": "1"})
        assert (await server.rest("GET", "/api/kernels"))[0] == 503
        for gateway in gateways:
            gateway.answer = (500, {})
        assert (await server.rest("GET", "/api/kernels"))[0] >= 500
        for gateway in gateways:
            gateway.answer = None
        status, body = await server.rest("GET", "/api/kernels")
        assert (status, book.kernel_id in body) == (200, True)
        del server.kernels[book.kernel_id]
        assert await server.rest("GET", "/api/kernels") == (200, "[]")
        await asyncio.wait_for(book.closed.wait(), 10)
        assert book.close_code is not None
        assert book.close_code >= 1011
        assert book.states()[-1] == "dead"


@pytest.mark.e2e
async def test_notebook_that_reconnects_goes_on_where_it_was(
    tmp_path: Path, gateways: list[FakeGateway]
) -> None:
    async with jupyter(tmp_path, gateways) as server, notebook(server.url, server.token) as book:
        execution = await book.execute("print 200 0.002")
        await execution.wait_text("20\n")
        await book.disconnect()
        await book.connect()
        await execution.wait_done()
        lines = execution.text.split()
        assert sorted(set(lines), key=int) == numbers(200).split(), "complete"
        assert len(lines) - 200 <= 20, "doubles only inside the last unproven batch"


@pytest.mark.e2e
async def test_frozen_gateway_lets_rest_and_websocket_go(
    tmp_path: Path, gateways: list[FakeGateway]
) -> None:
    async with jupyter(tmp_path, gateways) as server, notebook(server.url, server.token) as book:
        await book.run("print 1")
        await server.wait_log("learned of the gateway")
        frozen = carrying(gateways)
        frozen.freeze()
        # the call hangs at the frozen gateway until that is found out, then goes elsewhere
        async with asyncio.timeout(8):
            assert (await book.rest("POST", "/interrupt"))[0] == 204
            assert (await book.run("print 5")).text == numbers(5)
        frozen.thaw()


@pytest.mark.e2e
async def test_stopping_the_server_ends_no_kernel(
    tmp_path: Path, gateways: list[FakeGateway]
) -> None:
    async with jupyter(tmp_path, gateways) as server, notebook(server.url, server.token) as book:
        await book.run("print 1")
        await server.wait_log("learned of the gateway")
        await asyncio.to_thread(server.process.stop)
        assert book.kernel_id in server.kernels
        assert all(gateway.count("DELETE", book.kernel_id) == 0 for gateway in gateways)
        assert f"these kernels stay: {book.kernel_id}" in server.log()


@pytest.mark.e2e
async def test_shutdown_on_exit_ends_them(tmp_path: Path, gateways: list[FakeGateway]) -> None:
    option = "--HoldfastGatewayClient.shutdown_on_exit=True"
    async with jupyter(tmp_path, gateways, option) as server:
        async with notebook(server.url, server.token) as book:
            await book.run("print 1")
        await asyncio.to_thread(server.process.stop)
        assert not server.kernels


@pytest.mark.e2e
async def test_user_classes_are_respected_and_reported(
    tmp_path: Path, gateways: list[FakeGateway]
) -> None:
    option = (
        "--ServerApp.kernel_websocket_connection_class="
        "jupyter_server.gateway.connections.GatewayWebSocketConnection"
    )
    async with jupyter(tmp_path, gateways, option) as server:
        assert "holdfast: not fully active" in server.log()
        assert "GatewayWebSocketConnection" in server.log()


@pytest.mark.e2e
async def test_without_a_gateway_it_does_nothing(tmp_path: Path) -> None:
    async with jupyter(tmp_path, []) as server:
        assert "holdfast_client_shim | extension was successfully loaded" in server.log()
        assert "holdfast:" not in server.log()
        async with notebook(server.url, server.token) as book:
            assert (await book.run("print(6 * 7)")).text == "42\n"


@pytest.mark.e2e
async def test_several_urls_from_the_environment(
    tmp_path: Path, gateways: list[FakeGateway]
) -> None:
    for gateway in gateways:
        gateway.peers = []
    await gateways[0].kill()
    urls = ",".join(gateway.url for gateway in gateways)
    async with jupyter(tmp_path, gateways, HOLDFAST_GATEWAY_URLS=urls) as server:
        async with notebook(server.url, server.token) as book:
            assert (await book.run("print 2")).text == numbers(2)


@pytest.mark.e2e
async def test_messages_the_shim_cannot_read_are_refused_alone(
    tmp_path: Path, gateways: list[FakeGateway]
) -> None:
    async with jupyter(tmp_path, gateways) as server, notebook(server.url, server.token) as book:
        assert book._socket is not None
        await book._socket.send_bytes(b"nonsense")
        await book._socket.send_str('{"header": 1}')
        assert (await book.run("print 2")).text == numbers(2)
        assert "malformed message" in server.log()


@pytest.mark.e2e
async def test_plain_gateway_keeps_kernels_no_longer_than_the_server(tmp_path: Path) -> None:
    gateway = await FakeGateway({}, subprotocol=V1_SUBPROTOCOL).start()
    try:
        async with jupyter(tmp_path, [gateway]) as server:
            async with notebook(server.url, server.token) as book:
                assert (await book.run("print 3")).text == numbers(3)
            await asyncio.to_thread(server.process.stop)
            assert not server.kernels
    finally:
        await gateway.kill()


