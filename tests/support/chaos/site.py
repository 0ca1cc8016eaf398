"""The cluster of a chaos run: three proxies and three etcd members behind fault lines, one
launcher beside them and one on a node of its own, notebook servers with the shim.

Clients, launchers and other proxies know a proxy by the URL of its line, so whatever happens to
the line happens to all who speak with it. Each proxy has lines of its own to etcd.
"""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from support.chaos.inside.trace import PASSED_ON, Plant, trace_environment
from support.chaos.line import FaultLine
from support.chaos.network import HUB_ADDRESS, NODE_ADDRESS, Network
from support.cluster import Cluster, _write_private, clean_env
from support.processes import ManagedProcess, free_port
from support.small_disk import small_disk

#: The server that Debian 12 has; CI's other tests run with the wheel's.
ETCD: Final = "/usr/bin/etcd"
PROXIES, LAUNCHERS, MEMBERS = 3, 2, 3
#: Which launcher is on the node, and which one has a small disk.
NODE, SMALL = 1, 0
_DISK_BYTES = 48 * 1024 * 1024
_LOG = "log_memory_bytes = 262144\nlog_disk_bytes = 67108864\n"


class Site(Cluster):
    """Enter its lines (``open_lines``) in the event loop that the run has, then ``start``."""

    def __init__(self, base: Path, network: Network, *, plant: Plant) -> None:
        self.network = network
        self.traces = base / "traces"
        self._plant = plant
        self.store_lines: list[list[FaultLine]] = []
        self.lines: list[FaultLine] = []
        self._resources = ExitStack()
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.traces.mkdir()
        self._ports = [free_port() for _ in range(PROXIES)]
        self._store_ports = [[free_port() for _ in range(MEMBERS)] for _ in range(PROXIES)]
        super().__init__(
            base,
            proxies=PROXIES,
            launchers=LAUNCHERS,
            etcd_members=MEMBERS,
            etcd_binary=ETCD if Path(ETCD).exists() else shutil.which("etcd"),
        )
        directory = base / "launcher"
        directory.mkdir(mode=0o700)
        self.disk = self._resources.enter_context(small_disk(directory, _DISK_BYTES))

    async def open_lines(self) -> None:
        """Listen where clients will be sent."""
        for n, port in enumerate(self._ports):
            line = FaultLine(port, port=_port(self.proxy_urls[n]), hosts=(HUB_ADDRESS,))
            self.lines.append(line)
            members = zip(self.etcd_urls, self._store_ports[n], strict=True)
            lines = [FaultLine(_port(url), port=there) for url, there in members]
            self.store_lines.append(lines)
            for each in (line, *lines):
                await each.open()

    async def close_lines(self) -> None:
        for line in (*self.lines, *(line for lines in self.store_lines for line in lines)):
            await line.close()

    def stop(self) -> None:
        """End everything, and give the small disk back."""
        try:
            super().stop()
        finally:
            self._resources.close()

    def _make_proxy(self, n: int) -> ManagedProcess:
        config = self.base / f"proxy-{n}.toml"
        endpoints = [f"http://127.0.0.1:{port}" for port in self._store_ports[n]]
        toml = (
            f'proxy_id = "proxy-{n}"\nport = {self._ports[n]}\n'
            f'advertised_url = "{self.proxy_urls[n]}"\n'
            f'token = "{self.token}"\nsingle_user = true\ncluster_key = "{self.cluster_key}"\n'
            f'join_token = "{self.join_token}"\n[etcd]\nendpoints = {json.dumps(endpoints)}\n'
        )
        _write_private(config, toml)
        return self._python(f"proxy-{n}", "holdfast_proxy", config)

    def _make_launcher(self, n: int) -> ManagedProcess:
        name = "launcher" if n == 0 else f"launcher-{n}"
        proxies = self.proxy_urls
        host, prefix = "127.0.0.1", []
        if n == NODE:
            host, prefix = NODE_ADDRESS, self.network.node_prefix
            proxies = [f"http://{HUB_ADDRESS}:{_port(url)}" for url in proxies]
        toml = (
            f'launcher_id = "launcher-{n}"\nstate_dir = "{self.base / name}"\nhost = "{host}"\n'
            f"proxies = {json.dumps(proxies)}\nallow_plain_proxies = true\n"
            f'join_token = "{self.join_token}"\nsingle_user = true\n'
            f'keeper_entry = "support.chaos.inside.keeper:run"\n'
            f"env_passthrough = {json.dumps(PASSED_ON)}\n{_LOG if n == SMALL else ''}"
        )
        config = self.launcher_configs[n]
        _write_private(config, toml)
        module = "support.chaos.inside.launcher"
        command = [*prefix, sys.executable, "-m", module, "--config", str(config)]
        env = clean_env(**trace_environment(self.traces, self._plant))
        return ManagedProcess(name, command, log=self.base / f"{name}.log", env=env)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
