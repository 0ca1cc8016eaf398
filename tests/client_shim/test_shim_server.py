"""A stock Jupyter Server with nothing but ``--gateway-url``, against fake gateways."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from holdfast_protocol.jupyter import V1_SUBPROTOCOL
from support.cluster import clean_env, http_status
from support.fake_stream_keeper import FakeGateway, FakeKernel
from support.notebook import Notebook, notebook
from support.processes import ManagedProcess, free_port

TOKEN = "a-gateway-token"

#: One loop and one Jupyter Server for most tests: its imports alone take seconds.
pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Server:
    url: str
    token: str
    process: ManagedProcess
    gateways: list[FakeGateway]
    kernels: dict[str, FakeKernel]

    def log(self) -> str:
        return self.process.log.read_text()

    async def rest(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        headers = {"Authorization": f"token {self.token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, self.url + path, json=body) as response,
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


#: Extensions of other packages, whose imports would take most of a server's start.
_OTHERS = ("jupyterlab", "jupyter_lsp", "jupyter_server_terminals", "notebook_shim")


def command_for(url: str, token: str, root: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "jupyter_server", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={url.rsplit(':', 1)[1]}", "--ServerApp.port_retries=0",
        "--no-browser", "--allow-root", f"--ServerApp.root_dir={root}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.jpserver_extensions={ dict.fromkeys(_OTHERS, False)!r}", *more,
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


async def two_gateways() -> list[FakeGateway]:
    kernels: dict[str, FakeKernel] = {}
    made = [await FakeGateway(kernels).start() for _ in range(2)]
    for gateway in made:
        gateway.peers = made
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    made = await two_gateways()
    async with jupyter(tmp_path_factory.mktemp("shared"), made) as server:
        yield server
    for gateway in made:
        await gateway.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def server(stage: Server) -> AsyncIterator[Server]:
    """The shared server; both gateways live when a test begins."""
    for gateway in stage.gateways:
        gateway.answer = None
        gateway.thaw()
        gateway.calls.clear()
        await gateway.kill()
        await gateway.start()
    await stage.rest("GET", "/api/kernelspecs")
    await stage.wait_log(f"learned of the gateway {stage.gateways[1].url}")
    yield stage
    assert TOKEN not in stage.log()


def numbers(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


def carrying(gateways: list[FakeGateway]) -> FakeGateway:
    return next(gateway for gateway in gateways if gateway.connections)


@pytest.mark.parametrize("legacy", [False, True])
async def test_notebook_survives_its_gateway(server: Server, legacy: bool) -> None:
    """Only one URL is configured; the second endpoint is learned. REST moves too."""
    assert "holdfast: active" in server.log()
    gateways = server.gateways
    async with notebook(server.url, server.token, legacy=legacy) as book:
        kernel = server.kernels[book.kernel_id]
        await book.run("print 3")
        execution = await book.execute("print 300 0.002")
        await execution.wait_text("50\n")
        first = carrying(gateways)
        await first.kill()
        await execution.wait_done()
        assert execution.text == numbers(300)
        assert kernel.executed == ["print 3", "print 300 0.002"]
        assert (await book.rest("GET", ""))[0] == 200
        assert (await book.rest("POST", "/interrupt"))[0] == 204
        assert (await book.rest("POST", "/restart"))[0] == 200
        big = await book.run("big 3000000")
        (shown,) = big.of_type("display_data")
        assert len(shown.buffers[0]) == 3_000_000
        await _answer_input(book)
        await kernel.wait_for(lambda: kernel.acknowledged == kernel.log.index.head)
        (second,) = [gateway for gateway in gateways if gateway is not first]
        (call,) = [call for _, path, call in second.calls if path.endswith("/interrupt")]
        assert call["headers"]["Holdfast-After"] == [f"{book.session_id}:2"]
        assert 0 < float(call["headers"]["Holdfast-Max-Age"][0]) <= 10
        assert call["headers"]["Holdfast-Request"]
        assert second.authorizations == {f"token {TOKEN}"}


async def _answer_input(book: Notebook) -> None:
    asked = await book.execute("input", allow_stdin=True)
    await asked.wait_for(lambda: bool(asked.of_type("input_request")))
    (request,) = asked.of_type("input_request")
    await book.send("input_reply", {"value": "seven"}, channel="stdin",
                    parent=request.header_dict)  # fmt: skip
    await asked.wait_done()
    assert asked.text == "got seven\n"


async def test_start_is_repeated_and_starts_once(server: Server) -> None:
    before = set(server.kernels)
    for gateway in server.gateways:
        gateway.swallow_next_answer = True
    async with notebook(server.url, server.token) as book:
        starts = [call for gateway in server.gateways for method, path, call in gateway.calls
                  if (method, path) == ("POST", "/api/kernels")]  # fmt: skip
        assert len(starts) >= 2
        assert {call["body"]["env"]["KERNEL_ID"] for call in starts} == {book.kernel_id}
        assert len({call["headers"]["Holdfast-Request"][0] for call in starts}) == 1
        assert set(server.kernels) - before == {book.kernel_id}
    for gateway in server.gateways:
        gateway.swallow_next_answer = False


async def test_kernel_is_forgotten_on_404_and_nothing_else(server: Server) -> None:
    async with notebook(server.url, server.token) as book:
        await book.run("print 1")
        for gateway in server.gateways:
            gateway.answer = (500, {})
        assert (await server.rest("GET", "/api/kernels"))[0] >= 500
        for gateway in server.gateways:
            gateway.answer = (503, {"Retry-After": "1"})
        asking = asyncio.ensure_future(server.rest("GET", "/api/kernels"))
        await eventually(lambda: all(g.count("GET", "/api/kernels") >= 2 for g in server.gateways),
                         10, "asked again after Retry-After")  # fmt: skip
        for gateway in server.gateways:
            gateway.answer = None
        status, body = await asking
        assert (status, book.kernel_id in body) == (200, True)
        del server.kernels[book.kernel_id]
        status, body = await server.rest("GET", "/api/kernels")
        assert (status, book.kernel_id in body) == (200, False)
        await asyncio.wait_for(book.closed.wait(), 10)
        assert book.close_code is not None
        assert book.close_code >= 1011
        assert book.states()[-1] == "dead"


async def test_notebook_that_reconnects_goes_on_where_it_was(server: Server) -> None:
    async with notebook(server.url, server.token) as book:
        execution = await book.execute("print 200 0.002")
        await execution.wait_text("20\n")
        await book.disconnect()
        await book.connect()
        await execution.wait_done()
        lines = execution.text.split()
        assert sorted(set(lines), key=int) == numbers(200).split(), "complete"
        assert len(lines) - 200 <= 20, "doubles only inside the last unproven batch"


async def test_frozen_gateway_lets_rest_and_websocket_go(server: Server) -> None:
    async with notebook(server.url, server.token) as book:
        await book.run("print 1")
        carrying(server.gateways).freeze()
        # the call hangs at the frozen gateway until that is found out, then goes elsewhere
        async with asyncio.timeout(8):
            assert (await book.rest("POST", "/interrupt"))[0] == 204
            assert (await book.run("print 5")).text == numbers(5)


async def test_messages_the_shim_cannot_read_are_refused_alone(server: Server) -> None:
    async with notebook(server.url, server.token) as book:
        assert book._socket is not None
        await book._socket.send_bytes(b"nonsense")
        await book._socket.send_str('{"header": 1}')
        assert (await book.run("print 2")).text == numbers(2)
        assert "malformed message" in server.log()


async def test_stopping_the_server_ends_no_kernel(tmp_path: Path) -> None:
    gateways = await two_gateways()
    try:
        async with jupyter(tmp_path, gateways) as server:
            async with notebook(server.url, server.token) as book:
                await book.run("print 1")
            await asyncio.to_thread(server.process.stop)
            assert book.kernel_id in server.kernels
            assert all(gateway.count("DELETE", book.kernel_id) == 0 for gateway in gateways)
            assert f"these kernels stay: {book.kernel_id}" in server.log()
    finally:
        for gateway in gateways:
            await gateway.kill()


async def subscribed(server: Server, statuses: list[dict[str, Any]]) -> None:
    """What a front end listens to, until it is cancelled."""
    headers = {"Authorization": f"token {server.token}"}
    url = f"{server.url}/api/events/subscribe"
    async with aiohttp.ClientSession(headers=headers) as http, http.ws_connect(url) as socket:
        async for frame in socket:
            event = json.loads(frame.data)
            if event["schema_id"] == "urn:holdfast:kernel-stream:v1":
                statuses.append(event)


async def test_the_status_goes_out_as_an_event_and_can_be_asked(server: Server) -> None:
    statuses: list[dict[str, Any]] = []
    listener = asyncio.ensure_future(subscribed(server, statuses))
    try:
        async with notebook(server.url, server.token) as book:
            await book.run("print 3")
            await eventually(lambda: bool(statuses), 10, "an event")
            status, text = await server.rest("GET", "/api/holdfast/streams")
            document = json.loads(text)
            assert (status, document["active"], document["problems"]) == (200, True, [])
            assert document["version"]
            assert set(document["gateways"]) >= {gateway.url for gateway in server.gateways}
            (stream,) = [s for s in document["streams"] if s["kernel_id"] == book.kernel_id]
            assert (stream["state"], stream["resumed"]) == ("connected", None)
            assert stream["session_id"] == book.session_id
            first = carrying(server.gateways)
            assert stream["gateway"] == first.url
            await first.kill()
            await eventually(lambda: any(s["resumed"] for s in statuses), 10, "the break's end")
            event = next(s for s in statuses if s["resumed"])
            assert (event["state"], event["kernel_id"]) == ("connected", book.kernel_id)
            assert event["resumed"]["lost"] == 0
            assert event["resumed"]["seconds"] < 5
            assert set(event) == {"schema_id", *stream}
    finally:
        listener.cancel()
    async with aiohttp.ClientSession() as http:
        url = f"{server.url}/api/holdfast/streams"
        async with http.get(url) as response:
            assert response.status == 403, "not without the server's token"


async def test_killed_in_mid_cell_and_restarted_on_the_same_port(tmp_path: Path) -> None:
    """The notebook server itself. The keeper and its gateways live on."""
    gateways = await two_gateways()
    try:
        async with jupyter(tmp_path, gateways) as server:
            body = {"path": "a.ipynb", "name": "", "type": "notebook", "kernel": {"name": "fake"}}
            status, text = await server.rest("POST", "/api/sessions", body)
            assert status == 201, text
            session = json.loads(text)
            kernel_id = session["kernel"]["id"]
            async with notebook(server.url, server.token, kernel_id=kernel_id) as book:
                execution = await book.execute("print 300 0.01")
                await execution.wait_text("40\n")
                await asyncio.to_thread(server.process.kill)
                server.process.start()
                await server.wait_up()
                listed = json.loads((await server.rest("GET", "/api/sessions"))[1])
                assert [(s["id"], s["path"], s["kernel"]["id"]) for s in listed] == [
                    (session["id"], "a.ipynb", kernel_id)
                ]
                await book.closed.wait()
                await book.connect()
                await execution.wait_done()
                lines = execution.text.split()
                assert sorted(set(lines), key=int) == numbers(300).split(), "complete"
                assert len(lines) - 300 <= 100, "doubles only inside the last unproven batch"
                assert (await book.run("print 2")).text == numbers(2)
            assert server.kernels[kernel_id].executed == ["print 300 0.01", "print 2"]
    finally:
        for gateway in gateways:
            await gateway.kill()


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
