"""A real launcher in a process of its own, and the calls that a proxy makes to it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from holdfast_launcher.ending import end_kernels
from holdfast_launcher.processes import ProcessId
from support.processes import ManagedProcess, wait_until

T = TypeVar("T")
HERE = Path(__file__).parent
SMALL = "small_keeper:run"


@dataclass
class Reply:
    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False)


class LauncherProcess:
    """``env``: what is added to its environment."""

    def __init__(
        self, base: Path, *, entry: str = SMALL, env: dict[str, str] | None = None
    ) -> None:
        self.base = base
        self.state = base / "state"
        self.settings: dict[str, Any] = {
            "launcher_id": "test-1",
            "state_dir": str(self.state),
            "ready_file": str(base / "ready.json"),
            "single_user": True,
            "keeper_entry": entry,
            "keeper_start_timeout": 15.0,
        }
        self.config = base / "launcher.toml"
        keep = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR")
        environment = {name: os.environ[name] for name in keep if name in os.environ}
        environment |= {"PYTHONPATH": str(HERE), **(env or {})}
        self.process = ManagedProcess(
            "launcher",
            [sys.executable, "-m", "holdfast_launcher", "--config", str(self.config)],
            log=base / "launcher.log",
            env=environment,
            cwd=base,
        )
        self.url = ""
        #: The launcher's certificate, when it speaks TLS.
        self.pin: str | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def token(self) -> str:
        return (self.state / "access_token").read_text()

    def directory(self, kernel_id: str) -> Path:
        return self.state / "kernels" / kernel_id

    def start(self) -> None:
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.settings.items()]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)
        ready = self.base / "ready.json"
        ready.unlink(missing_ok=True)
        self.process.start()
        wait_until(lambda: self.answered(ready), seconds=20, what="the launcher's ready file")
        self.url = json.loads(ready.read_text())["url"]

    def answered(self, ready: Path) -> bool:
        assert self.process.alive, f"the launcher ended:\n{self.process.tail()}"
        return ready.exists()

    async def call(
        self,
        method: str,
        path: str,
        *,
        fence: str | None = None,
        body: Any = None,
        token: str | None = None,
    ) -> Reply:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        if fence is not None:
            headers["Holdfast-Fence"] = fence
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, self.url + path, json=body, headers=headers, ssl=self._verification()
            ) as answer,
        ):
            data = await answer.read()
            is_json = answer.content_type == "application/json"
            parsed = json.loads(data) if is_json else {"raw": data}
            return Reply(answer.status, parsed, dict(answer.headers))

    def _verification(self) -> bool | aiohttp.Fingerprint:
        return True if self.pin is None else aiohttp.Fingerprint(bytes.fromhex(self.pin))

    async def put(
        self, kernel_id: str, *, nonce: str = "n1", fence: str = "1.10", **more: Any
    ) -> Reply:
        body = {"nonce": nonce, "spec": "python3", "user": "ada", "env": {}, **more}
        return await self.call("PUT", f"/v1/kernels/{kernel_id}", fence=fence, body=body)

    async def get(self, kernel_id: str) -> Reply:
        return await self.call("GET", f"/v1/kernels/{kernel_id}")

    async def delete(self, kernel_id: str, *, fence: str = "1.10") -> Reply:
        return await self.call("DELETE", f"/v1/kernels/{kernel_id}", fence=fence)

    async def wait_dead(self, kernel_id: str) -> dict[str, Any]:
        async def dead() -> dict[str, Any] | None:
            body = (await self.get(kernel_id)).body
            return None if body["alive"] else body

        return await until(dead, what=f"{kernel_id} is dead")

    def logged(self, event: str, *, about: str) -> bool:
        """Whether the launcher's log has this event for this kernel."""
        lines = self.process.log.read_text().splitlines()
        return any(event in line and about in line for line in lines)

    async def wait_log(self, text: str, *, about: str = "") -> None:
        async def said() -> bool:
            return self.logged(text, about=about)

        await until(said, what=f"the launcher logs {text!r}")

    async def end(self) -> None:
        """Everything, whatever state a failed test left it in."""
        if self.process.alive:
            self.process.kill()
        left = await end_kernels(self.state / "kernels")
        assert left == [], f"left: {left}"


async def keeper_call(
    handle: dict[str, Any], method: str, path: str, *, fence: str = "1.10", body: Any = None
) -> Reply:
    """A proxy's call to a keeper."""
    headers = {"Authorization": f"Bearer {handle['credential']}", "Holdfast-Fence": fence}
    url = f"http://{handle['endpoint']['host']}:{handle['endpoint']['port']}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, json=body or {}, headers=headers) as answer,
    ):
        return Reply(answer.status, json.loads(await answer.read()), dict(answer.headers))


def process_of(handle: dict[str, Any]) -> ProcessId:
    engine = handle["engine_handle"]
    return ProcessId(engine["pid"], engine["start_time"])


async def wait_gone(process: ProcessId) -> None:
    async def gone() -> bool:
        return not process.running

    await until(gone, what=f"{process} is gone")


async def until(condition: Callable[[], Awaitable[T | None]], *, what: str) -> T:
    """Poll a condition until it is truthy."""
    deadline = time.monotonic() + 15
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within 15 s: {what}"
        await asyncio.sleep(0.02)


def proc(pid: int, name: str) -> str:
    """A file of /proc/<pid>."""
    return Path(f"/proc/{pid}/{name}").read_text()


def new_id() -> str:
    return str(uuid.uuid4())
