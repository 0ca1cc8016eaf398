"""One proxy as a process: start, ready file, logs, SIGTERM, a freeze, and how it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from holdfast_proxy.config import ConfigError, ProxyConfig
from holdfast_proxy.server import bind, main
from support.edge_server import until
from support.fake_keeper import CREDENTIAL, Certificate, WebsocketKeeper

KERNEL = "11111111-1111-4111-8111-111111111111"
TESTS = Path(__file__).resolve().parents[2]
AUTH = {"Authorization": "Bearer process-token"}


@dataclass
class Proxy:
    """A running process and what its ready file says."""

    process: asyncio.subprocess.Process
    ready: dict[str, Any]
    log: Path

    @property
    def url(self) -> str:
        return str(self.ready["url"])


async def spawn(
    folder: Path, text: str, env: dict[str, str] | None = None
) -> asyncio.subprocess.Process:
    config = folder / "proxy.toml"
    config.write_text(text)
    config.chmod(0o600)
    with (folder / "log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "support.proxy_process", str(config)),
            env={**os.environ, "PYTHONPATH": str(TESTS), **(env or {})},
            stdout=log,
            stderr=log,
        )


@contextlib.asynccontextmanager
async def running(folder: Path, text: str = "", **env: str) -> AsyncIterator[Proxy]:

    (folder / "ready.json").unlink(missing_ok=True)
    base = "port = 0\nproxy_id = 'px'\nready_file = 'ready.json'\ntoken = 'process-token'\n"
    process = await spawn(folder, base + text, env)
    try:
        ready = folder / "ready.json"
        await until(lambda: ready.exists() or process.returncode is not None, 30)
        assert process.returncode is None, (folder / "log").read_text()
        yield Proxy(process, json.loads(ready.read_text()), folder / "log")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


def modes(folder: Path) -> set[int]:
    """The permissions of its ready file."""
    return {item.stat().st_mode & 0o777 for item in folder.glob("*.json")}


def kernels(keeper: WebsocketKeeper) -> dict[str, str]:
    e = keeper.endpoint
    return {"KERNELS": json.dumps({KERNEL: [e.host, e.port, e.fingerprint, CREDENTIAL]})}


async def test_sigterm_moves_clients_and_exits_cleanly(tmp_path: Path) -> None:
    async with (
        WebsocketKeeper() as keeper,
        running(tmp_path, **kernels(keeper)) as proxy,
        aiohttp.ClientSession(headers=AUTH) as session,
    ):
        assert (proxy.ready["id"], proxy.ready["pid"]) == ("px", proxy.process.pid)
        assert modes(tmp_path) == {0o600}
        channels = f"{proxy.url}/api/kernels/{KERNEL}/channels?session_id=s&token=in-a-query"
        async with session.ws_connect(channels) as client:
            await client.send_str("hello")
            assert (await client.receive(timeout=10)).data == "hello"
            assert list(keeper.sockets) == ["px.1"]
            started = time.monotonic()
            proxy.process.send_signal(signal.SIGTERM)
            message = await client.receive(timeout=10)
            told = time.monotonic() - started
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1012)
            host, port = proxy.url.removeprefix("http://").split(":")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)), timeout=5)
        assert await asyncio.wait_for(proxy.process.wait(), 10) == 0
        assert told < 1  # about 10 ms on an idle machine
        assert keeper.drains == [{"tunnels": ["px.1"]}]
    log = proxy.log.read_text()
    for secret in ("process-token", CREDENTIAL, "in-a-query"):
        assert secret not in log
    events = [json.loads(line) for line in log.splitlines()]
    assert [e["event"] for e in events] == ["listening", "draining", "drained"]
    assert all({"timestamp", "level", "logger"} <= e.keys() for e in events)


async def test_a_killed_proxy_gets_its_port_back_at_once(tmp_path: Path) -> None:
    async with WebsocketKeeper() as keeper, aiohttp.ClientSession(headers=AUTH) as session:
        async with running(tmp_path, **kernels(keeper)) as proxy:
            url = f"{proxy.url}/api/kernels/{KERNEL}/channels"
            async with session.ws_connect(url) as client:
                await client.send_str("hello")
                await client.receive(timeout=10)
                proxy.process.kill()
                message = await client.receive(timeout=10)
                assert message.type in (WSMsgType.CLOSED, WSMsgType.ERROR)
            # The kernel at once ends the leg to the keeper, too.
            (upstream,) = keeper.sockets.values()
            await until(lambda: upstream.closed)
        text = f"port = {proxy.url.rpartition(':')[2]}\nready_file = 'again.json'\n"
        process = await spawn(tmp_path, text, kernels(keeper))
        try:
            await until((tmp_path / "again.json").exists, 30)
            assert json.loads((tmp_path / "again.json").read_text())["url"] == proxy.url
        finally:
            process.kill()
            await process.wait()


async def test_a_frozen_proxy_does_not_delete_when_it_wakes(tmp_path: Path) -> None:
    """Real SIGSTOP: the request lies in the socket longer than its age limit."""
    async with (
        WebsocketKeeper() as keeper,
        running(tmp_path, **kernels(keeper)) as proxy,
        aiohttp.ClientSession(headers=AUTH) as session,
    ):
        url = f"{proxy.url}/api/kernels/{KERNEL}"
        async with session.get(url) as answer:  # leaves a connection open for the next
            assert answer.status == 200
        proxy.process.send_signal(signal.SIGSTOP)
        age = {"Holdfast-Max-Age": "0.8"}
        held = [
            asyncio.create_task(session.delete(url, headers=age)),
            asyncio.create_task(session.post(url + "/restart", headers=age)),
        ]
        frozen_until = time.monotonic() + 1.5
        await until(lambda: time.monotonic() > frozen_until)
        proxy.process.send_signal(signal.SIGCONT)
        for answer in await asyncio.gather(*held):
            assert answer.status == 503, await answer.text()
            assert "held here" in (await answer.json())["message"]
        async with session.get(url) as answer:
            assert answer.status == 200


async def test_tls_to_clients(tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path / "tls")
    text = "tls_cert = 'tls/cert.pem'\ntls_key = 'tls/key.pem'\nlog_format = 'console'\n"
    async with (
        WebsocketKeeper(certificate=certificate) as keeper,
        running(tmp_path, text, **kernels(keeper)) as proxy,
        aiohttp.ClientSession(headers=AUTH) as session,
    ):
        assert proxy.url.startswith("https://")
        trust = ssl.create_default_context(cafile=str(certificate.cert_file))
        trust.check_hostname = False
        url = f"{proxy.url}/api/kernels/{KERNEL}/channels"
        async with session.ws_connect(url, ssl=trust, max_msg_size=0) as client:
            large = os.urandom(4 << 20)
            for _ in range(4):
                await client.send_bytes(large)
            for _ in range(4):
                assert (await client.receive(timeout=20)).data == large
            keeper.abort_all()
            message = await client.receive(timeout=10)
            assert message.type in (WSMsgType.CLOSED, WSMsgType.ERROR)


@pytest.mark.parametrize(
    ("text", "env", "code", "words"),
    [
        ("host = '0.0.0.0'", {}, 2, "there is no token"),
        ("port = 0\nenv_whitelist = ['PATH']", {}, 2, "PATH"),
        ("port = 0", {"REFUSE": "the cluster says active-passive"}, 1, "active-passive"),
    ],
)
async def test_it_refuses_with_a_sentence(
    tmp_path: Path, text: str, env: dict[str, str], code: int, words: str
) -> None:
    process = await spawn(tmp_path, text, env)
    assert await asyncio.wait_for(process.wait(), 30) == code
    log = (tmp_path / "log").read_text()
    assert words in log
    assert "Traceback" not in log


async def test_what_the_cluster_cannot_use_is_status_2_too(tmp_path: Path) -> None:
    """With the real cluster behind it, which is built after the arguments were found good."""
    config = tmp_path / "proxy.toml"
    config.write_text("port = 0\n")
    config.chmod(0o600)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdfast_proxy", "--config", str(config)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert said.startswith(b"holdfast proxy: cluster_key_file is missing")
    assert b"Traceback" not in said


@pytest.mark.parametrize("text", ["nonsense = 1", "host = 'no.such.host.invalid'\ntoken = 'x'"])
def test_a_configuration_that_cannot_be_used_is_status_2(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text(text)
    (tmp_path / "c.toml").chmod(0o600)
    assert main(["--config", str(tmp_path / "c.toml")]) == 2
    (word,) = [word for word in ("nonsense", "no.such.host.invalid") if word in text]
    assert word in capsys.readouterr().err


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            bind(ProxyConfig(port=port))
