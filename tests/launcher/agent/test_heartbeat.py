"""Heartbeats to proxies that die, refuse, forget and name others: real HTTP, small proxies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from launcher_process import LauncherProcess, new_id, process_of

from holdfast_launcher.config import LauncherConfig, parse_config
from holdfast_launcher.network.heartbeat import Heartbeat, Presence
from support.processes import free_port


class SmallProxy:
    """Takes heartbeats; ``mode`` is "ok", "silent" (accepts and never answers) or a status."""

    def __init__(self) -> None:
        self.beats: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.tokens: list[str] = []
        self.mode: str | int = "ok"
        self.credential = "own-credential"
        self.others: list[str] = []
        self.url = ""
        self.accepted = {"join", "own-credential"}

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[SmallProxy]:
        app = web.Application()
        app.router.add_post("/holdfast/v1/launchers/{id}", self.beat)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def beat(self, request: web.Request) -> web.Response:
        if self.mode == "silent":
            await asyncio.Event().wait()
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.tokens.append(token)
        if token not in self.accepted:
            return web.json_response({"reason": "unauthorized"}, status=401)
        if isinstance(self.mode, int):
            return web.json_response({}, status=self.mode)
        body = await request.json()
        self.beats.put_nowait({"id": request.match_info["id"], **body})
        answer: dict[str, Any] = {"ttl": 6, "proxies": [{"id": "x", "url": u} for u in self.others]}
        if token == "join":
            answer["credential"] = self.credential
        return web.json_response(answer)

    async def wait_beat(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            return await self.beats.get()


@pytest.fixture
async def proxies() -> AsyncIterator[tuple[SmallProxy, SmallProxy]]:
    async with SmallProxy().serving() as first, SmallProxy().serving() as second:
        yield first, second


def configured(base: Path, proxies: list[str], **more: Any) -> LauncherConfig:
    document = {
        "launcher_id": "node-1",
        "state_dir": "state",
        "proxies": proxies,
        "join_token": "join",
        "heartbeat_interval": 0.05,
        "heartbeat_deadline": 0.3,
        **more,
    }
    (base / "state").mkdir(exist_ok=True)
    return parse_config(document, base=base)


@contextlib.asynccontextmanager
async def beating(
    config: LauncherConfig, kernels: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Heartbeat, asyncio.Event]]:
    async def report() -> tuple[dict[str, Any], str]:
        return kernels or {}, "digest"

    news = asyncio.Event()
    presence = Presence("http://127.0.0.1:1", None, "access", "local")
    heartbeat = Heartbeat(config=config, presence=presence, report=report, news=news)
    task = asyncio.create_task(heartbeat.run())
    try:
        yield heartbeat, news
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_heartbeat_says_everything(
    tmp_path: Path, proxies: tuple[SmallProxy, SmallProxy]
) -> None:
    first, _ = proxies
    config = configured(tmp_path, [first.url], labels={"gpu": "yes"}, capacity={"kernels": 4})
    async with beating(config, {"k": {"alive": True}}) as (heartbeat, _news):
        beat = await first.wait_beat()
        following = await first.wait_beat()
    assert beat == {
        "id": "node-1",
        "version": 1,
        "url": "http://127.0.0.1:1",
        "fingerprint": None,
        "access_token": "access",
        "boot_id": heartbeat.boot_id,
        "counter": 1,
        "engine": "local",
        "labels": {"gpu": "yes"},
        "capacity": {"kernels": 4},
        "kernelspecs_digest": "digest",
        "kernels": {"k": {"alive": True}},
    }
    assert following["counter"] == 2


async def test_joins_once_and_keeps_its_own_credential(
    tmp_path: Path, proxies: tuple[SmallProxy, SmallProxy]
) -> None:
    first, _ = proxies
    config = configured(tmp_path, [first.url])
    async with beating(config):
        await first.wait_beat()
        await first.wait_beat()
    assert first.tokens[:2] == ["join", "own-credential"]
    stored = tmp_path / "state" / "credential.json"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert json.loads(stored.read_text())["credential"] == "own-credential"
    first.tokens.clear()
    async with beating(config):
        await first.wait_beat()
    assert first.tokens[0] == "own-credential"


@pytest.mark.parametrize("how", ["refused", "silent", 503])
async def test_the_next_proxy_at_once_when_one_does_not_answer(
    tmp_path: Path, proxies: tuple[SmallProxy, SmallProxy], how: str | int
) -> None:
    dead, living = proxies
    dead_url = f"http://127.0.0.1:{free_port()}" if how == "refused" else dead.url
    dead.mode = how
    # An interval longer than the test: what arrives did not wait for the next round.
    config = configured(tmp_path, [dead_url, living.url], heartbeat_interval=3600.0)
    async with beating(config) as (heartbeat, news):
        assert (await living.wait_beat())["counter"] == 1
        news.set()
        assert (await living.wait_beat())["counter"] == 2
        assert heartbeat.proxies()[0] == living.url, "who answered is asked first"


async def test_a_proxy_that_dies_later_is_left_for_the_other(
    tmp_path: Path, proxies: tuple[SmallProxy, SmallProxy]
) -> None:
    first, second = proxies
    async with beating(configured(tmp_path, [first.url, second.url])):
        await first.wait_beat()
        first.mode = 503
        await second.wait_beat()


async def test_news_go_out_at_once(tmp_path: Path, proxies: tuple[SmallProxy, SmallProxy]) -> None:
    first, _ = proxies
    async with beating(configured(tmp_path, [first.url], heartbeat_interval=3600.0)) as (_, news):
        await first.wait_beat()
        news.set()
        await first.wait_beat()


async def test_learns_proxies_and_forgets_no_configured_one(
    tmp_path: Path, proxies: tuple[SmallProxy, SmallProxy]
) -> None:
    first, second = proxies
    first.others = [second.url, "http://elsewhere.example:1"]
    async with beating(configured(tmp_path, [first.url])) as (heartbeat, _):
        await first.wait_beat()
        first.mode = 503
        await second.wait_beat()
        assert first.url in heartbeat.proxies()
        assert "http://elsewhere.example:1" not in heartbeat.proxies(), "secrets in clear"


async def test_joins_again_when_the_cluster_has_forgotten_it(
    tmp_path: Path, proxies: tuple[SmallProxy, SmallProxy]
) -> None:
    first, _ = proxies
    async with beating(configured(tmp_path, [first.url])):
        await first.wait_beat()
        first.accepted = {"join", "second-credential"}
        first.credential = "second-credential"
        while not first.beats.empty():
            first.beats.get_nowait()
        await first.wait_beat()
        await first.wait_beat()
    assert first.tokens[-1] == "second-credential"


async def test_all_proxies_away_and_back(
    tmp_path: Path, proxies: tuple[SmallProxy, SmallProxy]
) -> None:
    first, second = proxies
    first.mode = second.mode = 503
    async with beating(configured(tmp_path, [first.url, second.url])):
        async with asyncio.timeout(10):
            while len(first.tokens) < 3 or len(second.tokens) < 3:  # noqa: ASYNC110 - others count
                await asyncio.sleep(0.01)
        second.mode = "ok"
        await second.wait_beat()


async def test_a_real_launcher_reports_a_death_at_once(
    own_launcher: LauncherProcess, proxies: tuple[SmallProxy, SmallProxy]
) -> None:
    dead, living = proxies
    dead.mode = "silent"
    own_launcher.settings["proxies"] = [dead.url, living.url]
    own_launcher.settings["join_token"] = "join"
    own_launcher.settings["heartbeat_interval"] = 3600.0
    own_launcher.start()
    beat = await living.wait_beat()
    assert (beat["url"], beat["access_token"]) == (own_launcher.url, own_launcher.token)
    assert len(beat["kernelspecs_digest"]) == 64
    kernel_id = new_id()
    handle = (await own_launcher.put(kernel_id)).body
    process_of(handle).send(9)
    seen = (await living.wait_beat())["kernels"][kernel_id]
    assert (seen["alive"], seen["execution_state"]) == (False, "dead")
    assert "SIGKILL" in seen["reason"]
    own_launcher.settings["heartbeat_interval"] = 0.1
    own_launcher.process.kill()
    second = new_id()
    own_launcher.start()
    await own_launcher.put(second)
    kernels = (await living.wait_beat())["kernels"]
    while kernels.get(second, {}).get("execution_state") != "idle":  # from its activity.json
        kernels = (await living.wait_beat())["kernels"]
    assert kernels[second]["connections"] == 1
    assert kernels[kernel_id]["alive"] is False
