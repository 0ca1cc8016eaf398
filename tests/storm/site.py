"""The place of a storm: two watched proxies, real kernels, and crowds in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil

from storm.lag import LateBeat, read_beats
from support.cluster import Cluster, clean_env
from support.processes import ManagedProcess

TESTS = Path(__file__).parent.parent
#: How many kernels are started at the same time.
_STARTS = 4


class WatchedCluster(Cluster):
    """A cluster whose proxies note how late their event loops are."""

    def __repr__(self) -> str:
        return f"<WatchedCluster {self.proxies}>"

    def lag_file(self, n: int) -> Path:
        return self.base / f"lag-{n}.jsonl"

    def beats(self, n: int, *, since: float) -> list[LateBeat]:
        """The late beats of proxy ``n``."""
        return read_beats(self.lag_file(n), since=since)

    def _make_proxy(self, n: int) -> ManagedProcess:
        plain = super()._make_proxy(n)
        more = {"HOLDFAST_LAG": str(self.lag_file(n))}
        if "HOLDFAST_PROFILE" in os.environ:
            more["HOLDFAST_PROFILE"] = os.environ["HOLDFAST_PROFILE"] + f".proxy-{n}"
        config = self.base / f"proxy-{n}.toml"
        command = [sys.executable, "-m", "storm.watched_proxy", "--config", str(config)]
        return ManagedProcess(plain.name, command, log=plain.log, env=clean_env(**more), cwd=TESTS)


class Crowds:
    """Processes that hold notebooks or plain websockets, spoken to all at once."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    def __repr__(self) -> str:
        return f"<Crowds {[process.pid for process in self._processes]}>"

    async def each(self, do: str, **options: Any) -> list[dict[str, Any]]:
        """The same command to all; their answers."""
        return await self.deal(do, [options] * len(self._processes))

    async def deal(self, do: str, options: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A command with options of its own to each; their answers."""
        return await asyncio.gather(
            *(
                _ask(process, {"do": do, **option})
                for process, option in zip(self._processes, options, strict=True)
            )
        )


async def _ask(process: asyncio.subprocess.Process, command: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(command).encode() + b"\n")
    line = await process.stdout.readline()
    assert line, f"crowd {process.pid} ended"
    answer: dict[str, Any] = json.loads(line)
    return answer


@asynccontextmanager
async def crowds(module: str, cluster: Cluster, count: int) -> AsyncIterator[Crowds]:
    """``count`` processes that run ``module``; they are killed at the end."""
    processes: list[asyncio.subprocess.Process] = []
    home = cluster.base / "crowd-home"
    env = clean_env(JUPYTER_DATA_DIR=str(home), JUPYTER_CONFIG_DIR=str(home))
    if "HOLDFAST_PROFILE" in os.environ:
        env["HOLDFAST_PROFILE"] = os.environ["HOLDFAST_PROFILE"]
    try:
        for n in range(count):
            with (cluster.base / f"crowd-{n}.log").open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", module, cwd=TESTS, env=env, limit=1 << 24,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                )  # fmt: skip
            processes.append(process)
            assert process.stdin is not None
            setting = {"urls": cluster.proxy_urls, "token": cluster.token}
            process.stdin.write(json.dumps(setting).encode() + b"\n")
        yield Crowds(processes)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
        for process in processes:
            await process.wait()


async def start_kernels(cluster: Cluster, count: int) -> list[str]:
    """Kernels that are up, by id; started through the first proxy."""
    turn = asyncio.Semaphore(_STARTS)
    headers = {"Authorization": f"token {cluster.token}"}
    url = f"{cluster.proxy_urls[0]}/api/kernels"

    async def start(http: aiohttp.ClientSession) -> str:
        async with turn:
            body = {"name": "python3", "env": {"KERNEL_ID": str(uuid.uuid4())}}
            async with http.post(url, json=body) as answer:
                text = await answer.text()
                assert answer.status == 201, f"{answer.status}: {text}"
                return str(json.loads(text)["id"])

    async with aiohttp.ClientSession(headers=headers) as http:
        return await asyncio.gather(*(start(http) for _ in range(count)))


def established(cluster: Cluster, n: int) -> int:
    """How many clients hold a connection to proxy ``n``."""
    port = urlsplit(cluster.proxy_urls[n]).port
    return sum(
        link.status == psutil.CONN_ESTABLISHED and link.laddr.port == port
        for link in psutil.Process(cluster.proxies[n].pid).net_connections(kind="tcp")
    )
