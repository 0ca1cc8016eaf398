"""JupyterLab with the scripted shim, and what a test says through it."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.cluster import clean_env, http_status
from support.lab.analysis import notebook
from support.processes import ManagedProcess, free_port, wait_until
from support.tcp_line import TcpLine

BUILT = Path(__file__).parents[2] / "client_shim" / "holdfast_client_shim" / "labextension"
#: JupyterLab's own toast about news, which no test wants on its screen.
_NOTIFICATION = "@jupyterlab/apputils-extension/notification"
GATEWAYS = ["http://gateway-a.example:8888", "http://gateway-b.example:8888"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """One stream as the shim tells it. ``ago``: seconds since its state began."""

    kernel_id: str
    session_id: str = "a-session"
    state: str = "connected"
    reason: str = ""
    gateway: str = GATEWAYS[0]
    ago: float = 0.0
    resumed: tuple[float, int, int] | None = None
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))

    def as_json(self) -> dict[str, Any]:
        since = self.begun - timedelta(seconds=self.ago)
        return {
            "kernel_id": self.kernel_id,
            "session_id": self.session_id,
            "state": self.state,
            "reason": self.reason,
            "gateway": self.gateway,
            "since": since.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "resumed": None
            if self.resumed is None
            else dict(zip(("seconds", "recovered", "lost"), self.resumed, strict=True)),
        }


class ScriptedLab:
    """JupyterLab on this machine's own kernels, reached through a line that can be cut."""

    def __init__(self, base: Path) -> None:
        self.token = secrets.token_urlsafe(16)
        self.root = base / "root"
        self.root.mkdir()
        self._answer = base / "answer.json"
        self.answer_streams()
        # The built files of this work tree, whatever is installed.
        extensions = base / "labextensions"
        extensions.mkdir()
        (extensions / "holdfast-status").symlink_to(BUILT)
        self._port = free_port()
        self.line = TcpLine(self._port)
        home = base / "home"
        quiet = home / "config" / "lab" / "user-settings" / f"{_NOTIFICATION}.jupyterlab-settings"
        quiet.parent.mkdir(parents=True)
        quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
        env = clean_env(
            JUPYTER_CONFIG_DIR=str(home / "config"),
            JUPYTER_DATA_DIR=str(home / "data"),
            JUPYTER_RUNTIME_DIR=str(home / "runtime"),
            PYTHONPATH=str(Path(__file__).parent),
            FAKE_SHIM_ANSWER=str(self._answer),
        )
        active = {"fake_shim": True, "holdfast_client_shim": False}
        command = [
            sys.executable, "-m", "jupyterlab",
            "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self._port}",
            "--ServerApp.port_retries=0", "--no-browser", "--allow-root",
            f"--ServerApp.root_dir={self.root}", f"--IdentityProvider.token={self.token}",
            f"--ServerApp.jpserver_extensions={active}",
            f"--LabApp.extra_labextensions_path={extensions}",
            "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]  # fmt: skip
        self.process = ManagedProcess("scripted-lab", command, log=base / "lab.log", env=env)

    async def open(self) -> None:
        await asyncio.to_thread(self.process.start)
        await asyncio.to_thread(wait_until, self._answers, seconds=60, what="JupyterLab")
        await self.line.open()

    async def close(self) -> None:
        await self.line.cut()
        await asyncio.to_thread(self.process.stop)

    def write_notebook(self, name: str) -> None:
        (self.root / name).write_text(json.dumps(notebook({"only": "pass"})))

    def page_url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.line.port}/lab/{path}?token={self.token}&reset"

    # What the shim says.

    def answer_streams(self, *streams: Told) -> None:
        """From now on the question is answered with these; nobody is told."""
        body = {
            "active": True,
            "version": "0.1.0",
            "gateways": GATEWAYS,
            "streams": [stream.as_json() for stream in streams],
        }
        self._write(200, body)

    def answer_absent(self) -> None:
        """As a server without an active shim."""
        self._write(404, {"message": "Not found"})

    async def emit(self, *streams: Told) -> None:
        """The shim emits an event for each of these."""
        for stream in streams:
            await asyncio.to_thread(self._post, stream.as_json())

    def _post(self, body: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/test/emit",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 204

    def _write(self, status: int, body: dict[str, Any]) -> None:
        fresh = self._answer.with_suffix(".new")
        fresh.write_text(json.dumps({"status": status, "body": body}))
        fresh.replace(self._answer)

    def _answers(self) -> bool:
        assert self.process.alive, f"JupyterLab ended:\n{self.process.tail()}"
        return http_status(f"http://127.0.0.1:{self._port}/api/status", token=self.token) == 200
