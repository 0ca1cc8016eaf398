"""One address for clients without the shim: a real HAProxy with the file from docs/howto.

Proxies die behind it in turn while a plain websocket client runs a cell. It does what browsers
do: it notices that its websocket ended, and connects to the same address again.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from support.cluster import Cluster, http_get
from support.figures import report
from support.haproxy import CONFIG, HAProxy, check, localised
from support.notebook import Execution, Notebook, notebook
from support.printer import PrinterCell
from support.processes import wait_until

KILLS = int(os.environ.get("HOLDFAST_KILLS", "3"))
LINES = 300
#: A frozen proxy costs seconds each time.
FREEZES = max(1, min(KILLS, 10))


def test_haproxy_takes_the_file_as_it_is_handed_out(tmp_path: Path) -> None:
    """Names and certificates apart: those of the example exist nowhere."""
    pem = tmp_path / "pair.pem"
    pem.write_bytes(_certificate())
    text, files = re.subn(r"/etc/haproxy/[\w-]+\.pem", str(pem), CONFIG.read_text())
    text, hosts = re.subn(r"edge-\d\.example\.org", "127.0.0.1", text)
    assert (files, hosts) == (7, 6)
    config = tmp_path / "haproxy.cfg"
    config.write_text(text)
    result = check(config)
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if "ALERT" in line or "WARNING" in line]
    assert [line for line in said if "no log address" not in line] == []
    config.write_text(localised(8443, ["http://127.0.0.1:1", "http://127.0.0.1:2"]))
    assert check(config).returncode == 0


def _certificate() -> bytes:
    """A self-signed pair in one PEM, as HAProxy wants it."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway.example.org")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("balanced"), proxies=3).start()
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


@pytest.fixture
async def whole(cluster: Cluster, balancer: HAProxy) -> AsyncIterator[None]:
    """All proxies are there after a test, whatever became of it."""
    yield
    for n, proxy in enumerate(cluster.proxies):
        if not proxy.alive:
            await asyncio.to_thread(cluster.start_proxy, n)
    await asyncio.to_thread(balancer.wait_states, "UP", "UP", "UP")


def tunnelling(cluster: Cluster) -> int:
    """Which proxy has the one tunnel of the cluster, whoever is in front of it: they say so
    themselves. (Connections to a keeper tell nothing: proxies also ask keepers things.)"""

    def one() -> list[int]:
        found = [n for n, url in enumerate(cluster.proxy_urls) if tunnels(cluster, url)]
        return found if len(found) == 1 else []

    return wait_until(one, seconds=10, what="one proxy that carries the tunnel")[0]


def tunnels(cluster: Cluster, url: str) -> int:
    status, body = http_get(f"{url}/holdfast/v1/proxy", token=cluster.token)
    return int(json.loads(body)["tunnels"] or 0) if status == 200 else 0


@asynccontextmanager
async def browser(balancer: HAProxy, token: str) -> AsyncIterator[tuple[Notebook, list[int]]]:
    """A plain client that comes back at once; and the close codes that it saw."""
    codes: list[int] = []

    async def come_back(book: Notebook) -> None:
        while True:
            await book.closed.wait()
            codes.append(book.close_code or 0)
            for _ in range(50):
                with suppress(aiohttp.ClientError):
                    await book.connect()
                    break
                await asyncio.sleep(0.1)

    async with notebook(balancer.url, token) as book:
        returning = asyncio.create_task(come_back(book))
        try:
            yield book, codes
        finally:
            returning.cancel()


def doubles(execution: Execution) -> int:
    """How many stream messages came more than once."""
    ids = [message.msg_id for _, message in execution.messages if message.msg_type == "stream"]
    return len(ids) - len(set(ids))


def check_at_least_once(execution: Execution, cell: PrinterCell) -> int:
    """Nothing missing, in order, one run; the number of doubled messages."""
    seen: set[str] = set()
    text = ""
    for _, message in execution.messages:
        if message.msg_type == "stream" and message.msg_id not in seen:
            seen.add(message.msg_id)
            text += message.content_dict()["text"]
    assert text.splitlines() == [f"{cell.number}:{i}" for i in range(cell.lines)]
    assert execution.reply_content["status"] == "ok"
    assert cell.side_file.read_text().split().count(str(cell.number)) == 1
    return doubles(execution)


async def end_in_turn(
    cluster: Cluster, balancer: HAProxy, how: signal.Signals, tries: int
) -> tuple[list[float], int, list[int]]:
    """End the carrying proxy in mid-cell ``tries`` times: silences, doubles, close codes."""
    silences, doubled = [], 0
    side = cluster.base / f"haproxy-{how.name}.side"
    async with browser(balancer, cluster.token) as (book, codes):
        await book.run("pass")
        for number in range(tries):
            cell = PrinterCell(number, LINES, side, interval=0.01)
            execution = await book.execute(cell.code)
            await execution.wait_text(f"{number}:{20 + number % 30}\n")
            carrier = await asyncio.to_thread(balancer.carrier)
            moment = asyncio.get_running_loop().time()
            proxy = cluster.proxies[carrier]
            proxy.signal(how)
            await execution.wait_done()
            silences.append(execution.longest_silence(moment))
            doubled += check_at_least_once(execution, cell)
            if how is signal.SIGSTOP:
                proxy.signal(signal.SIGCONT)
            else:
                await asyncio.to_thread(proxy.wait, 10)
                await asyncio.to_thread(cluster.start_proxy, carrier)
            await asyncio.to_thread(balancer.wait_states, "UP", "UP", "UP")
        await book.rest("DELETE", "")
    return silences, doubled, codes


@pytest.mark.long
@pytest.mark.usefixtures("whole")
@pytest.mark.timeout(120 + 12 * KILLS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_proxies_end_in_turn_behind_one_address(
    cluster: Cluster, balancer: HAProxy, how: signal.Signals
) -> None:
    silences, doubled, codes = await end_in_turn(cluster, balancer, how, KILLS)
    report(f"proxy {how.name} behind HAProxy, plain client", silences, lost=0, doubled=doubled)
    assert max(silences) <= 1.0
    if how is signal.SIGTERM:
        assert codes.count(1012) == KILLS, codes


@pytest.mark.long
@pytest.mark.usefixtures("whole")
@pytest.mark.timeout(120 + 20 * FREEZES)
async def test_a_frozen_proxy_is_found_by_the_health_check(
    cluster: Cluster, balancer: HAProxy
) -> None:
    silences, doubled, _ = await end_in_turn(cluster, balancer, signal.SIGSTOP, FREEZES)
    report("proxy SIGSTOP behind HAProxy, plain client", silences, lost=0, doubled=doubled)
    assert max(silences) <= 5.0


@pytest.mark.long
@pytest.mark.usefixtures("whole")
async def test_a_draining_proxy_gets_no_new_connection(cluster: Cluster, balancer: HAProxy) -> None:
    """Requests and websockets all through a drain: none fails, none reaches the one that goes."""
    failed: list[object] = []
    asked = 0
    stop = asyncio.Event()

    async def ask(http: aiohttp.ClientSession) -> None:
        nonlocal asked
        while not stop.is_set():
            try:
                async with http.get(f"{balancer.url}/api/kernels") as response:
                    if response.status != 200:
                        failed.append((response.status, await response.text()))
            except aiohttp.ClientError as error:
                failed.append(repr(error))
            asked += 1

    async with browser(balancer, cluster.token) as (book, codes):
        headers = {"Authorization": f"token {cluster.token}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            carrier = await asyncio.to_thread(balancer.carrier)
            asking = [asyncio.create_task(ask(http)) for _ in range(3)]
            proxy = cluster.proxies[carrier]
            proxy.signal(signal.SIGTERM)
            status = await asyncio.to_thread(proxy.wait, 10)
            assert (await book.run("print('elsewhere')")).text == "elsewhere\n"
            await asyncio.to_thread(cluster.start_proxy, carrier)
            await asyncio.to_thread(balancer.wait_states, "UP", "UP", "UP")
            stop.set()
            await asyncio.gather(*asking)
        assert status == 0
        assert codes == [1012]
        assert failed == []
        assert asked > 20
        await book.rest("DELETE", "")


@pytest.mark.long
@pytest.mark.usefixtures("whole")
async def test_nothing_is_held_back_and_large_messages_pass(
    cluster: Cluster, balancer: HAProxy
) -> None:
    async with browser(balancer, cluster.token) as (book, codes):
        cell = PrinterCell(1, 200, cluster.base / "flow.side", interval=0.01)
        execution = await (await book.execute(cell.code)).wait_done()
        cell.check(execution)
        times = [at for at, message in execution.messages if message.msg_type == "stream"]
        gaps = [late - early for early, late in pairwise(times)]
        report("10 ms between lines, through HAProxy", gaps)
        assert max(gaps) < 0.5, "lines wait for one another"
        large = await book.run("print('x' * 12_000_000)")
        assert len(large.text) == 12_000_001
        sent = await book.run(f"print(len({'y' * 6_000_000!r}))")
        assert sent.text == "6000000\n"
        assert codes == []
        await book.rest("DELETE", "")


@pytest.mark.long
@pytest.mark.usefixtures("whole")
async def test_a_silent_websocket_stays_open(cluster: Cluster, balancer: HAProxy) -> None:
    """Longer than the keeper's own patience with a peer that answers no ping (10 s)."""
    async with browser(balancer, cluster.token) as (book, codes):
        await book.run("import time; time.sleep(14)")
        assert (await book.run("print('there')")).text == "there\n"
        assert codes == []
        await book.rest("DELETE", "")


@pytest.mark.long
@pytest.mark.usefixtures("whole")
async def test_errors_that_end_a_kernel_in_the_browser_do_not_come_through(
    cluster: Cluster, balancer: HAProxy
) -> None:
    """JupyterLab takes 502 and 504 for death. Killed in the middle of a call, or no proxy at
    all: 503 either way, and Retry-After only where nothing can have been carried out."""
    headers = {"Authorization": f"token {cluster.token}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(f"{balancer.url}/api/kernels", json={}) as response:
            assert response.status == 201
            kernel = f"{balancer.url}/api/kernels/{(await response.json())['id']}"
        for proxy in cluster.proxies:
            proxy.signal(signal.SIGSTOP)
        restart = asyncio.create_task(_status(http, "POST", f"{kernel}/restart"))
        await asyncio.to_thread(_wait_sessions, balancer)
        for proxy in cluster.proxies:
            proxy.kill()
        status, after = await restart
        assert (status, after) == (503, None)
        await asyncio.to_thread(balancer.wait_states, "DOWN", "DOWN", "DOWN")
        status, after = await _status(http, "GET", kernel)
        assert (status, after) == (503, "1")
        for n in range(3):
            await asyncio.to_thread(cluster.start_proxy, n)
        await asyncio.to_thread(balancer.wait_states, "UP", "UP", "UP")
        status, _ = await _status(http, "DELETE", kernel)
        assert status == 204


def _wait_sessions(balancer: HAProxy) -> None:
    wait_until(lambda: any(balancer.sessions().values()), seconds=5, what="the call at a proxy")


async def _status(http: aiohttp.ClientSession, method: str, url: str) -> tuple[int, str | None]:
    async with http.request(method, url) as response:
        return response.status, response.headers.get("Retry-After")


@pytest.mark.long
@pytest.mark.usefixtures("whole")
@pytest.mark.timeout(180)
async def test_a_shim_that_knows_the_one_address_only(cluster: Cluster, balancer: HAProxy) -> None:
    """On loopback it may learn the proxies' own addresses, and goes to them; what it has then is
    what it has without HAProxy: nothing doubled."""
    server = await asyncio.to_thread(cluster.jupyter, "one-address", gateway=balancer.url)
    silences = []
    async with notebook(server.url, server.token) as book:
        await book.run("pass")
        for number, how in enumerate([signal.SIGKILL, signal.SIGTERM] * KILLS):
            cell = PrinterCell(number, LINES, cluster.base / "shim-ha.side", interval=0.01)
            execution = await book.execute(cell.code)
            await execution.wait_text(f"{number}:30\n")
            carrier = await asyncio.to_thread(tunnelling, cluster)
            proxy = cluster.proxies[carrier]
            moment = asyncio.get_running_loop().time()
            proxy.signal(how)
            await execution.wait_done()
            silences.append(execution.longest_silence(moment))
            cell.check(execution)
            await asyncio.to_thread(proxy.wait, 10)
            await asyncio.to_thread(cluster.start_proxy, carrier)
        await book.rest("DELETE", "")
    report("proxy ends, shim with HAProxy as its only gateway URL", silences, lost=0, doubled=0)
    assert max(silences) <= 1.0
