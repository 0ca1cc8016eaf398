"""Against the real launcher, keeper and ipykernel: the contract of wire.md, not our fake of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from holdfast_proxy.cluster import Dead, KeeperEndpoint
from holdfast_proxy.errors import NotFound
from support.ownership_site import JOIN, USER, Proxy, Site, call, eventually, open_site, request

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def real_launcher(directory: Path, proxies: list[str]) -> AsyncIterator[None]:
    """A launcher process; its keepers and kernels are ended with it."""
    join = directory / "join.token"
    join.write_text(JOIN)
    join.chmod(0o600)
    urls = ", ".join(f'"{url}"' for url in proxies)
    config = directory / "launcher.toml"
    config.write_text(
        f'launcher_id = "real"\nstate_dir = "{directory / "state"}"\nproxies = [{urls}]\n'
        f'join_token_file = "{join}"\nsingle_user = true\nport = 0\n'
    )
    config.chmod(0o600)
    command = [sys.executable, "-m", "holdfast_launcher", "--config", str(config)]
    with (directory / "launcher.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)
        end = await asyncio.create_subprocess_exec(*command, "end-kernels")
        await asyncio.wait_for(end.wait(), 30)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site() as opened:
        a, b = await opened.proxy("a"), await opened.proxy("b")
        async with real_launcher(tmp_path, [a.config.url, b.config.url]):
            for proxy in (a, b):
                await eventually(lambda p=proxy: ready(p), within=40)
            yield opened


def ready(proxy: Proxy) -> bool:
    return "python3" in proxy.parts.kernelspecs.names("real")


async def test_a_real_kernels_life(site: Site) -> None:
    a, b = site.proxies
    kernel_id = str(uuid.uuid4())
    model = await asyncio.wait_for(a.cluster.start_kernel(request(kernel_id)), 60)
    assert model.name == "python3"
    assert isinstance(await b.cluster.locate(kernel_id, USER), KeeperEndpoint)
    assert (await b.cluster.get_kernel(kernel_id, USER)).execution_state in ("idle", "starting")
    await b.cluster.interrupt_kernel(kernel_id, USER, call())
    await b.cluster.restart_kernel(kernel_id, USER, call(request_id="once"))
    await b.cluster.restart_kernel(kernel_id, USER, call(request_id="once"))
    endpoint = a.parts.endpoints.of(kernel_id, a.parts.cached(kernel_id))
    assert (await a.parts.keepers.state(endpoint)).incarnation == 2
    a.pause(site.server)
    await eventually(lambda: b.parts.ownership.effective(kernel_id), within=15)
    await asyncio.wait_for(b.cluster.delete_kernel(kernel_id, USER, call()), 30)
    with pytest.raises(NotFound):
        await b.cluster.get_kernel(kernel_id, USER)


async def test_a_killed_keeper_and_kernel_are_dead_on_the_launchers_word(site: Site) -> None:
    a, b = site.proxies
    kernel_id = str(uuid.uuid4())
    await asyncio.wait_for(a.cluster.start_kernel(request(kernel_id)), 60)
    endpoint = a.parts.endpoints.of(kernel_id, a.parts.cached(kernel_id))
    answer = await a.parts.keepers._call("GET", endpoint, "/v1/kernel", timeout=5)
    handle = a.parts.cached(kernel_id).record.engine_handle
    os.kill(answer.document["pid"], signal.SIGKILL)
    os.kill(handle["pid"], signal.SIGKILL)

    async def dead() -> bool:
        await b.cluster.report_unreachable(endpoint, "refused")
        return isinstance(await b.cluster.locate(kernel_id, USER), Dead)

    await eventually(dead, within=30)
    await eventually(lambda: a.parts.cached(kernel_id).record.state.value == "dead", within=30)
