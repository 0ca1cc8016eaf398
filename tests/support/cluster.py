"""A whole Holdfast on loopback, of separate processes that a test kills as it likes.

``holdfast up`` restarts what dies within two seconds; here nothing comes back unless the test
says so. The Jupyter Server is a stock one, pointed at the first proxy by ``--gateway-url``.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from support.etcd_server import find_etcd
from support.processes import ManagedProcess, free_port, wait_until

#: For a start on a machine that is busy with much else; JupyterLab's imports alone take seconds.
START_SECONDS = 60.0


def http_status(url: str, *, token: str | None = None, seconds: float = 2.0) -> int:
    """The status of a GET, or 0 when nobody answers."""
    return http_get(url, token=token, seconds=seconds)[0]


def http_get(url: str, *, token: str | None = None, seconds: float = 2.0) -> tuple[int, bytes]:
    """Status and body of a GET; 0 when nobody answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    headers = {"Authorization": f"token {token}"} if token else {}
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


#: The mode of every test's cluster; `make promises MODE=active-passive` runs them in the other.
MODE = os.environ.get("HOLDFAST_MODE", "active-active")


def clean_env(**more: str) -> dict[str, str]:
    """The test's environment without what would steer a child's Jupyter or Holdfast."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUPYTER_", "KG_", "EG_", "HOLDFAST_", "KERNEL_"))
    }
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}", **more}


class Cluster:
    """etcd, proxies, launchers and Jupyter Servers; ``stop`` ends all, kernels included.

    ``etcd`` and ``launcher`` are the first ones, which is all there is in most tests;
    ``etcd_binary`` is another etcd than `find_etcd`'s.
    """

    def __init__(
        self,
        base: Path,
        *,
        proxies: int = 2,
        launchers: int = 1,
        etcd_members: int = 1,
        etcd_binary: str | None = None,
        proxy_toml: str = "",
        launcher_toml: str = "",
    ) -> None:
        self.base = base
        self.token = secrets.token_urlsafe(24)
        self.servers: list[JupyterServer] = []
        self.cluster_key = secrets.token_urlsafe(32)
        self.join_token = secrets.token_urlsafe(32)
        self._proxy_toml, self._launcher_toml = proxy_toml, launcher_toml
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.etcd_urls = [f"http://127.0.0.1:{free_port()}" for _ in range(etcd_members)]
        self.etcds = self._make_etcds(etcd_binary or find_etcd())
        self.etcd, self.etcd_url = self.etcds[0], self.etcd_urls[0]
        self.proxy_urls = [f"http://127.0.0.1:{free_port()}" for _ in range(proxies)]
        self.proxies = [self._make_proxy(n) for n in range(proxies)]
        self.launcher_configs = [
            base / ("launcher.toml" if n == 0 else f"launcher-{n}.toml") for n in range(launchers)
        ]
        self.launchers = [self._make_launcher(n) for n in range(launchers)]
        self.launcher, self.launcher_config = self.launchers[0], self.launcher_configs[0]

    def start(self) -> Cluster:
        """Start everything and wait until kernels can be started."""
        try:
            self.start_etcd()
            for proxy in self.proxies:
                proxy.start()
            for launcher in self.launchers:
                launcher.start()
            for n in range(len(self.proxies)):
                self.wait_proxy(n, kernelspecs=True)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything. Idempotent; every step is tried."""
        for process in [*self.proxies, *self.launchers, *self.etcds]:
            if process.alive:
                os.kill(process.pid, 18)  # SIGCONT: a frozen one cannot end
        for server in self.servers:
            server.process.stop()
        for launcher in self.launchers:
            launcher.stop()
        self.end_kernels()
        for proxy in self.proxies:
            proxy.stop()
        for etcd in self.etcds:
            etcd.stop()

    def end_kernels(self) -> None:
        command = [sys.executable, "-m", "holdfast_launcher", "end-kernels", "--config"]
        for config in self.launcher_configs:
            with (self.base / "end-kernels.log").open("ab") as log:
                subprocess.run(
                    [*command, str(config)],
                    check=False,
                    timeout=60,
                    env=clean_env(),
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )

    def start_etcd(self) -> None:
        """Start the members that do not run, and wait until all serve."""
        for etcd in self.etcds:
            if not etcd.alive:
                etcd.start()
        for url in self.etcd_urls:
            self.wait_etcd(url)

    def wait_etcd(self, url: str) -> None:
        """Wait until the member at ``url`` serves, which it does in a quorum only."""
        wait_until(
            lambda: http_status(f"{url}/health") == 200, seconds=START_SECONDS, what=f"etcd {url}"
        )

    def etcd_leader(self) -> int:
        """Which member leads; waits for one."""

        def leading() -> list[int]:
            return [
                n
                for n, url in enumerate(self.etcd_urls)
                if b"etcd_server_is_leader 1" in http_get(f"{url}/metrics")[1]
            ]

        return wait_until(leading, seconds=START_SECONDS, what="an etcd leader")[0]

    def start_proxy(self, n: int, *, wait: bool = True) -> None:
        self.proxies[n].start()
        if wait:
            self.wait_proxy(n)

    def wait_proxy(self, n: int, *, kernelspecs: bool = False) -> None:
        url = self.proxy_urls[n]

        def ready() -> bool:
            assert self.proxies[n].alive, f"proxy {n} ended:\n{self.proxies[n].tail()}"
            if not self._is_up(n):
                return False
            return not kernelspecs or http_status(f"{url}/api/kernelspecs", token=self.token) == 200

        wait_until(ready, seconds=START_SECONDS, what=f"proxy {n} ready")

    def _is_up(self, n: int) -> bool:
        """Ready, or passive: it tunnels and passes on, and says 503 to load balancers."""
        status, body = http_get(f"{self.proxy_urls[n]}/readyz")
        return status == 200 or (status == 503 and b"passive: " in body)

    def carrier(self, pid: int) -> int:
        """Which proxy holds the established connections of process ``pid`` (the tunnel's).

        REST connections are short; the websocket is what stays. Raises TimeoutError.
        """
        ports = {urlsplit(url).port: n for n, url in enumerate(self.proxy_urls)}

        def one() -> list[int]:
            process = psutil.Process(pid)
            found = {
                ports[link.raddr.port]
                for link in process.net_connections(kind="tcp")
                if link.status == psutil.CONN_ESTABLISHED
                and link.raddr
                and link.raddr.port in ports
            }
            return list(found) if len(found) == 1 else []

        return wait_until(one, seconds=10, what="one proxy that carries the tunnel")[0]

    def jupyter(self, name: str = "jupyter", *, gateway: str | None = None) -> JupyterServer:
        """Start a stock Jupyter Server with the shim installed; returns when it answers."""
        server = JupyterServer(self, name, gateway or self.proxy_urls[0])
        self.servers.append(server)
        server.start()
        return server

    def _python(self, name: str, module: str, config: Path) -> ManagedProcess:
        command = [sys.executable, "-m", module, "--config", str(config)]
        return ManagedProcess(name, command, log=self.base / f"{name}.log", env=clean_env())

    def _make_etcds(self, binary: str) -> list[ManagedProcess]:
        peers = [f"http://127.0.0.1:{free_port()}" for _ in self.etcd_urls]
        everybody = ",".join(f"m{n}={peer}" for n, peer in enumerate(peers))
        made = []
        for n, (url, peer) in enumerate(zip(self.etcd_urls, peers, strict=True)):
            name = "etcd" if n == 0 else f"etcd-{n}"
            command = [
                binary, f"--name=m{n}", f"--data-dir={self.base / name}",
                f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
                f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster={everybody}", "--log-level=warn", "--logger=zap",
            ]  # fmt: skip
            log = self.base / f"{name}.log"
            made.append(ManagedProcess(name, command, log=log, env=clean_env()))
        return made

    def _make_proxy(self, n: int) -> ManagedProcess:
        config = self.base / f"proxy-{n}.toml"
        toml = (
            f'proxy_id = "proxy-{n}"\nport = {urlsplit(self.proxy_urls[n]).port}\n'
            f'token = "{self.token}"\nsingle_user = true\ncluster_key = "{self.cluster_key}"\n'
            f'join_token = "{self.join_token}"\nmode = "{MODE}"\n{self._proxy_toml}\n'
            f"[etcd]\nendpoints = {json.dumps(self.etcd_urls)}\n"
        )
        _write_private(config, toml)
        return self._python(f"proxy-{n}", "holdfast_proxy", config)

    def _make_launcher(self, n: int) -> ManagedProcess:
        name = "launcher" if n == 0 else f"launcher-{n}"
        toml = (
            f'launcher_id = "launcher-{n}"\nstate_dir = "{self.base / name}"\n'
            f'proxies = {json.dumps(self.proxy_urls)}\njoin_token = "{self.join_token}"\n'
            f"single_user = true\n{self._launcher_toml}\n"
        )
        _write_private(self.launcher_configs[n], toml)
        return self._python(name, "holdfast_launcher", self.launcher_configs[n])


class JupyterServer:
    """A stock Jupyter Server in a process of its own."""

    #: The module that is run, and what it is given besides.
    module = "jupyter_server"
    options: tuple[str, ...] = ()

    def __init__(self, cluster: Cluster, name: str, gateway: str) -> None:
        self.token = secrets.token_urlsafe(16)
        self.root = cluster.base / f"{name}-root"
        self.root.mkdir()
        self.url = f"http://127.0.0.1:{free_port()}"
        home = cluster.base / f"{name}-home"
        self.data_dir = home / "data"
        self.config_dir = home / "config"
        env = clean_env(
            JUPYTER_CONFIG_DIR=str(self.config_dir),
            JUPYTER_DATA_DIR=str(home / "data"),
            JUPYTER_RUNTIME_DIR=str(home / "runtime"),
            JUPYTER_GATEWAY_AUTH_TOKEN=cluster.token,
        )
        command = [
            sys.executable, "-m", self.module, f"--gateway-url={gateway}",
            "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={urlsplit(self.url).port}",
            "--ServerApp.port_retries=0", "--no-browser", "--allow-root",
            f"--ServerApp.root_dir={self.root}", f"--IdentityProvider.token={self.token}",
            *self.options,
        ]  # fmt: skip
        self.process = ManagedProcess(name, command, log=cluster.base / f"{name}.log", env=env)

    def start(self, *, gateway: bool = True) -> None:
        """Start it and wait until it answers; ``gateway``: also what it must ask one for."""
        path = "/api/status" if gateway else "/api"

        def answers() -> bool:
            assert self.process.alive, f"Jupyter Server ended:\n{self.process.tail()}"
            return http_status(f"{self.url}{path}", token=self.token) == 200

        self.process.start()
        wait_until(answers, seconds=START_SECONDS, what="Jupyter Server")


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
