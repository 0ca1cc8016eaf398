"""A Holdfast before a Slurm: starts kernels with resources, and watches what becomes of them."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from support.cluster import Cluster
from support.notebook import Notebook
from support.slurm.site import SlurmSite

T = TypeVar("T")

#: Three starts at once on a busy machine take long.
PATIENCE = 120.0


class SlurmGateway:
    """``bin_dir`` is where the launcher finds Slurm's commands, so that a test can come between."""

    def __init__(self, site: SlurmSite, cluster: Cluster, *, bin_dir: Path) -> None:
        self.site = site
        self.cluster = cluster
        self.bin_dir = bin_dir
        for name in ("sbatch", "squeue", "scancel"):
            (bin_dir / name).symlink_to(str(shutil.which(name)))

    @property
    def url(self) -> str:
        return self.cluster.proxy_urls[0]

    def kill_caller_of_sbatch(self) -> None:
        """The next sbatch submits and kills who called it before it can hear the number."""
        path = self.bin_dir / "sbatch"
        path.unlink()
        real = shutil.which("sbatch")
        path.write_text(
            f'#!/bin/sh\n{real} "$@" > {self.bin_dir}/submitted\n'
            f"ln -sf {real} {path}\nkill -9 $PPID\n"
        )
        path.chmod(0o755)

    async def post(self, **env: str) -> tuple[int, dict[str, Any], float]:
        """Ask for a kernel: status, body, and how long the answer took."""
        kernel_id = str(uuid.uuid4())
        body = {"name": "python3", "env": {"KERNEL_ID": kernel_id, **env}}
        begun = time.monotonic()
        async with self._http() as http, http.post(f"{self.url}/api/kernels", json=body) as got:
            text = await got.text()
            answer = {"id": kernel_id, **json.loads(text)}
            return got.status, answer, time.monotonic() - begun

    async def model(self, kernel_id: str) -> dict[str, Any]:
        async with (
            self._http() as http,
            http.get(f"{self.url}/api/kernels/{kernel_id}") as got,
        ):
            return {"status": got.status, **json.loads(await got.text())}

    async def delete(self, kernel_id: str) -> int:
        async with (
            self._http() as http,
            http.delete(f"{self.url}/api/kernels/{kernel_id}") as got,
        ):
            return got.status

    @asynccontextmanager
    async def kernel(self, **env: str) -> AsyncIterator[Notebook]:
        """A kernel with an open websocket, waiting or not; deleted at the end."""
        status, body, _ = await self.post(**env)
        assert status == 201, body
        async with self._http() as http:
            book = Notebook(http, self.url, body["id"], uuid.uuid4().hex)
            try:
                await book.connect()
                yield book
            finally:
                await book.disconnect()
                assert await self.delete(body["id"]) in (204, 404)

    async def job_of(self, kernel_id: str) -> dict[str, Any]:
        """Slurm's job of a kernel, once it has one."""

        def found() -> dict[str, Any] | None:
            jobs = [job for job in self.site.jobs() if kernel_id in job["comment"]]
            return jobs[0] if jobs else None

        return await until(found, what=f"a job of {kernel_id}")

    async def wait_gone(self, number: int) -> None:
        """Wait until Slurm runs this job no more."""

        def gone() -> bool:
            running = ("RUNNING", "PENDING", "COMPLETING")
            return all(
                job["job_id"] != number or job["job_state"] not in running
                for job in self.site.jobs()
            )

        await until(gone, what=f"job {number} is gone")

    def _http(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"token {self.cluster.token}"}
        return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=180))


async def until(condition: Callable[[], T | None], *, what: str, seconds: float = PATIENCE) -> T:
    """Poll in a worker thread until ``condition`` is truthy."""
    deadline = time.monotonic() + seconds
    while True:
        value = await asyncio.to_thread(condition)
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.1)
