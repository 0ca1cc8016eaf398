"""A JupyterLab server with the shim, and the line that a browser reaches it by.

The browser never dials the server itself but a `TcpLine`, so that a test can take the browser's
connections away while the server lives, and back.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

from support.cluster import Cluster, JupyterServer, http_status
from support.processes import wait_until
from support.tcp_line import TcpLine

START_SECONDS = 120.0
#: JupyterLab's own questions, which no test wants on its screen.
_QUIET = {
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    # One that meets a Ctrl+S makes JupyterLab ask whether the file was changed by somebody else.
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}


class LabServer(JupyterServer):
    """JupyterLab in a process of its own, at the same address after each start."""

    module = "jupyterlab"
    options = (
        # Lets a test read the state that the page is in (connection, unsaved changes).
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    )

    def __init__(self, cluster: Cluster, name: str = "lab") -> None:
        self.cluster = cluster
        super().__init__(cluster, name, cluster.proxy_urls[0])
        self.line = TcpLine(urlsplit(self.url).port or 0)
        for plugin, settings in _QUIET.items():
            file = self.config_dir / "lab" / "user-settings" / f"{plugin}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings))
        cluster.servers.append(self)

    def start(self, *, gateway: bool = True) -> None:
        """As the plain server's, but JupyterLab imports more before it answers."""
        path = "/api/status" if gateway else "/api"

        def answers() -> bool:
            assert self.process.alive, f"JupyterLab ended:\n{self.process.tail()}"
            return http_status(f"{self.url}{path}", token=self.token) == 200

        self.process.start()
        wait_until(answers, seconds=START_SECONDS, what="JupyterLab")

    async def open(self) -> None:
        """Start the server and the line to it."""
        await asyncio.to_thread(self.start)
        await self.line.open()

    async def close(self) -> None:
        """Cut the line and end the server. Its kernels end with the cluster."""
        await self.line.cut()
        await asyncio.to_thread(self.process.stop)

    def page_url(self, notebook: str) -> str:
        """What a person types to open ``notebook``, in a workspace without any history."""
        return f"http://127.0.0.1:{self.line.port}/lab/tree/{notebook}?token={self.token}&reset"

    def folder(self, name: str) -> Path:
        """A new folder below the server's root; kernels of its notebooks work there."""
        folder = self.root / name
        folder.mkdir()
        return folder


def lab_cluster(base: Path, *, launcher_toml: str = "") -> Cluster:
    """A cluster whose kernels work in the folder of their notebook, as people expect."""
    root = f'root_dir = "{base / "lab-root"}"\n'
    return Cluster(base, launcher_toml=root + launcher_toml)
