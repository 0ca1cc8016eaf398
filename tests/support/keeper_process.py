"""A real keeper process for tests, with the fake kernel side or the real one.

Run as a module it is that process: the config comes as JSON on stdin (no secret in argv), the
ready byte goes to stdout. ``running_keeper`` starts one and ends it by its pid, also on failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

CREDENTIAL = "keeper-credential-for-tests"
NONCE = "nonce-1"
KERNEL_ID = "11111111-2222-4333-8444-555555555555"
START_SECONDS = 20.0
_TESTS = Path(__file__).resolve().parent.parent


@dataclass
class KeeperProcess:
    """A running keeper. ``http`` carries the credential on every request."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    url: str
    http: aiohttp.ClientSession
    revision: int = 1

    @property
    def pid(self) -> int:
        return self.process.pid

    def keeper_file(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.state_dir / "keeper.json").read_text())
        return value

    async def state(self) -> dict[str, Any]:
        async with self.http.get(f"{self.url}/v1/kernel") as response:
            value: dict[str, Any] = await response.json()
            return value

    async def post(
        self, call: str, body: Any = None, *, fence: str | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a lifecycle call; header names with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Holdfast-Fence"] = fence or f"1.{self.revision}"
        async with self.http.post(f"{self.url}/v1/{call}", json=body, headers=named) as response:
            return response.status, await response.json()

    async def start_kernel(self) -> dict[str, Any]:
        status, body = await self.post("start", {"nonce": NONCE})
        assert status == 200, body
        return body

    async def websocket(
        self,
        session_id: str | None,
        *protocols: str,
        grants: str = "read,execute",
        tunnel: str = "t-1",
    ) -> aiohttp.ClientWebSocketResponse:
        query = {} if session_id is None else {"session_id": session_id}
        return await self.http.ws_connect(
            f"{self.url}/v1/channels",
            params=query,
            protocols=protocols,
            headers={"Holdfast-Grants": grants, "Holdfast-Tunnel": tunnel, "Holdfast-User": "me"},
            max_msg_size=0,
            autoping=False,
        )


@contextlib.asynccontextmanager
async def running_keeper(
    state_dir: Path, *, fake: bool = True, preamble: str = "", **config: Any
) -> AsyncIterator[KeeperProcess]:
    """A keeper that serves; its kernel is not started yet. ``preamble``: Python run before."""
    settings = {
        "kernel_id": KERNEL_ID,
        "nonce": NONCE,
        "spec": "python3",
        "user": "me",
        "state_dir": str(state_dir),
        "credential": CREDENTIAL,
    } | config
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir.parent / f"{state_dir.name}.stderr").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__, "fake" if fake else "real", preamble],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": str(_TESTS)},
            start_new_session=True,
        )
    try:
        await _hand_over(process, settings, state_dir)
        endpoint = json.loads((state_dir / "keeper.json").read_text())["endpoint"]
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {CREDENTIAL}"},
            timeout=aiohttp.ClientTimeout(total=60),
        ) as http:
            url = f"http://{endpoint['host']}:{endpoint['port']}"
            keeper = KeeperProcess(process, state_dir, url, http)
            try:
                yield keeper
            finally:
                if not fake:
                    await _end_real_kernel(keeper)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


async def _hand_over(
    process: subprocess.Popen[bytes], settings: dict[str, Any], state_dir: Path
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(settings).encode())
    process.stdin.close()
    async with asyncio.timeout(START_SECONDS):
        ready = await asyncio.to_thread(process.stdout.read, 1)
    if ready != b"1":
        errors = (state_dir.parent / f"{state_dir.name}.stderr").read_text()
        raise AssertionError(f"the keeper did not come up:\n{errors[-4000:]}")


async def _end_real_kernel(keeper: KeeperProcess) -> None:
    """A real kernel outlives a killed keeper: end it through the keeper, else by its pid."""
    pid = keeper.keeper_file().get("kernel_pid")
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with asyncio.timeout(10):
            await keeper.post("shutdown", {"now": True}, fence=f"{1 << 30}.1")
            return
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _main() -> int:
    kind, preamble = sys.argv[1:3]
    exec(preamble)  # noqa: S102  # a test's own code
    from holdfast_launcher.keeper.config import KeeperConfig
    from holdfast_launcher.keeper.main import run

    config = KeeperConfig.from_json(sys.stdin.read())
    ready = os.dup(sys.stdout.fileno())
    if kind == "real":
        return run(config, ready)
    from support.fake_kernel import FakeKernelHost

    return run(config, ready, build_host=FakeKernelHost)


if __name__ == "__main__":
    sys.exit(_main())
