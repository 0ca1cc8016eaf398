"""Real keeper processes for tests, with the fake kernel side or the real one.

Keepers are forked from one nursery process, as the launcher forks them from its zygote, so
that a test does not wait for imports. The config goes over a pipe (no secret in argv).
``running_keeper`` starts one and ends it by its pid, also on failure.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

CREDENTIAL = "keeper-credential-for-tests"
NONCE = "nonce-1"
KERNEL_ID = "11111111-2222-4333-8444-555555555555"
START_SECONDS = 30.0
IDLE_SECONDS = 3.0
_TESTS = Path(__file__).resolve().parent.parent


@dataclass
class KeeperProcess:
    """A running keeper. ``http`` carries the credential on every request."""

    pid: int
    pidfd: int
    state_dir: Path
    url: str
    http: aiohttp.ClientSession
    revision: int = 1

    def keeper_file(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.state_dir / "keeper.json").read_text())
        return value

    def log_text(self) -> str:
        return _errors_of(self.state_dir).read_text()

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

    async def wait_ended(self, seconds: float = 15.0) -> None:
        """Until the process is gone. Raises TimeoutError."""
        ready, _, _ = await asyncio.to_thread(select.select, [self.pidfd], [], [], seconds)
        if not ready:
            raise TimeoutError("the keeper still runs")

    def signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.pidfd, number)


async def eventually(holds: Callable[[], Awaitable[bool] | bool], seconds: float = 20.0) -> None:
    """Until ``holds`` does; for what no event tells. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            outcome = holds()
            if await outcome if isinstance(outcome, Awaitable) else outcome:
                return
            await asyncio.sleep(0.02)


def process_file(pid: int, name: str) -> str:
    """The text of ``/proc/<pid>/<name>``."""
    return Path(f"/proc/{pid}/{name}").read_text()


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
    order = {
        "config": settings,
        "fake": fake,
        "preamble": preamble,
        "stderr": str(_errors_of(state_dir)),
    }
    pid = await asyncio.to_thread(NURSERY.start, order)
    pidfd = os.pidfd_open(pid)
    try:
        endpoint = json.loads((state_dir / "keeper.json").read_text())["endpoint"]
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {CREDENTIAL}"},
            timeout=aiohttp.ClientTimeout(total=60),
        ) as http:
            url = f"http://{endpoint['host']}:{endpoint['port']}"
            keeper = KeeperProcess(pid, pidfd, state_dir, url, http)
            try:
                yield keeper
            finally:
                if not fake:
                    await _end_real_kernel(keeper)
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _errors_of(state_dir: Path) -> Path:
    return state_dir.parent / f"{state_dir.name}.stderr"


async def _end_real_kernel(keeper: KeeperProcess) -> None:
    """A real kernel outlives a killed keeper: end it through the keeper, else by its pid."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with asyncio.timeout(15):
            await keeper.post("shutdown", {"now": True}, fence=f"{1 << 30}.1")
            return
    found = keeper.keeper_file()
    kernel = found.get("kernel")
    if kernel is not None and found["pid"] == keeper.pid:  # else another keeper has it
        with contextlib.suppress(ProcessLookupError):
            os.kill(kernel["pid"], signal.SIGKILL)


class _Nursery:
    """The process that keepers are forked from: orders in, pids out, one JSON line each.

    It ends by itself after a moment without orders, so that it outlives no test session; the
    next order starts another.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, order: dict[str, Any]) -> int:
        line = self._ask(order) or self._ask(order)  # it may have gone just before
        answer = json.loads(line)
        if not answer["ready"]:
            errors = Path(order["stderr"]).read_text()
            raise AssertionError(f"the keeper did not come up:\n{errors[-4000:]}")
        return int(answer["pid"])

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            process.wait()

    def _ask(self, order: dict[str, Any]) -> bytes:
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(_TESTS)},
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            self.end()
        return line


NURSERY = _Nursery()
atexit.register(NURSERY.end)


def _main() -> None:
    """Be the nursery until stdin ends, or nothing was asked for a while."""
    # what every child needs, imported once
    import holdfast_launcher.keeper.kernel
    import holdfast_launcher.keeper.main  # noqa: F401  # as above
    import support.fake_kernel  # noqa: F401  # as above

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel of the machine reaps
    while select.select([sys.stdin], [], [], IDLE_SECONDS)[0]:
        line = sys.stdin.readline()  # one order at a time is written, so none is buffered
        if not line:
            return
        order = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _be_keeper(order, writer)
        os.close(writer)
        ready, _, _ = select.select([reader], [], [], START_SECONDS)
        answer = {"pid": pid, "ready": bool(ready) and os.read(reader, 1) == b"1"}
        os.close(reader)
        print(json.dumps(answer), flush=True)


def _be_keeper(order: dict[str, Any], ready_fd: int) -> None:
    """The forked child; never returns."""
    from holdfast_launcher.keeper.config import KeeperConfig
    from holdfast_launcher.keeper.main import run
    from support.fake_kernel import FakeKernelHost

    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        errors = os.open(order["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.dup2(errors, 2)
        exec(order["preamble"], {})  # noqa: S102  # a test's own code
        config = KeeperConfig.from_json(json.dumps(order["config"]))
        status = run(config, ready_fd, build_host=FakeKernelHost if order["fake"] else None)
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _main()
