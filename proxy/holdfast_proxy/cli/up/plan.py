"""What the tree consists of: options and ports in, one frozen plan out.

Pure: files are named here and written elsewhere, so that what each child is told can be read, and
tested, in one place. Secrets are named by file only; the one exception is JupyterLab, which takes
the gateway token from its environment (jupyter_server reads it nowhere else).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import toml
from .ports import LOOPBACK, Ports
from .state_dir import StateDir

#: Names of files below ``secrets/``.
TOKEN, CLUSTER_KEY, JOIN_TOKEN, LAB_TOKEN = "token", "cluster.key", "join.token", "lab.token"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """The command line. ``port`` 0: free ones. ``root_dir``: where notebooks are."""

    proxies: int = 2
    launchers: int = 1
    port: int = 0
    state_dir: Path
    token: str | None = None
    lab: bool = True
    keep_kernels: bool = False
    root_dir: Path

    def __repr__(self) -> str:
        return f"UpOptions({self.proxies} proxies, {self.launchers} launchers, {self.state_dir})"


class Plan:
    """Names, addresses, command lines and configuration texts of one tree."""

    def __init__(self, options: UpOptions, ports: Ports, state: StateDir) -> None:
        self.options, self.ports, self.state = options, ports, state

    def __repr__(self) -> str:
        return f"<Plan {self.options!r} {self.ports!r}>"

    @property
    def proxy_names(self) -> list[str]:
        return [f"proxy-{number}" for number in range(1, self.options.proxies + 1)]

    @property
    def launcher_names(self) -> list[str]:
        return [f"launcher-{number}" for number in range(1, self.options.launchers + 1)]

    @property
    def proxy_urls(self) -> list[str]:
        return [_url(port) for port in self.ports.proxies]

    @property
    def etcd_url(self) -> str:
        return _url(self.ports.etcd_client)

    @property
    def lab_url(self) -> str:
        return _url(self.ports.lab)

    def proxy_config(self, name: str) -> str:
        """The TOML text for one proxy (holdfast_proxy/config.py)."""
        return toml.dump(
            {
                "proxy_id": name,
                "cluster": "local",
                "host": LOOPBACK,
                "port": self.ports.proxies[self.proxy_names.index(name)],
                "ready_file": str(self.state.ready_file(name)),
                "token_file": str(self.state.secret_file(TOKEN)),
                "cluster_key_file": str(self.state.secret_file(CLUSTER_KEY)),
                "join_token_file": str(self.state.secret_file(JOIN_TOKEN)),
                "single_user": True,
                "etcd": {"endpoints": [self.etcd_url]},
            }
        )

    def launcher_config(self, name: str) -> str:
        """The TOML text for one launcher (holdfast_launcher/config.py)."""
        return toml.dump(
            {
                "launcher_id": name,
                "state_dir": str(self.launcher_state(name)),
                "host": LOOPBACK,
                "port": self.ports.launchers[self.launcher_names.index(name)],
                "ready_file": str(self.state.ready_file(name)),
                "proxies": self.proxy_urls,
                "join_token_file": str(self.state.secret_file(JOIN_TOKEN)),
                "single_user": True,
                "root_dir": str(self.options.root_dir),
            }
        )

    def launcher_state(self, name: str) -> Path:
        return self.state.path / name

    def configs(self) -> dict[Path, str]:
        """Every configuration file of the tree and its text."""
        texts = {self.state.config_file(name): self.proxy_config(name) for name in self.proxy_names}
        for name in self.launcher_names:
            texts[self.state.config_file(name)] = self.launcher_config(name)
        return texts

    def etcd_argv(self, binary: Path) -> tuple[str, ...]:
        """One member on loopback; its history is compacted, or the data would grow for ever."""
        client, peer = self.etcd_url, _url(self.ports.etcd_peer)
        return (
            str(binary),
            "--name=holdfast",
            f"--data-dir={self.state.etcd_data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=holdfast={peer}",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1h",
            "--log-level=warn",
            "--log-outputs=stderr",
        )

    def proxy_argv(self, name: str) -> tuple[str, ...]:
        config = str(self.state.config_file(name))
        return (sys.executable, "-m", "holdfast_proxy", "--config", config)

    def launcher_argv(self, name: str) -> tuple[str, ...]:
        config = str(self.state.config_file(name))
        return (sys.executable, "-m", "holdfast_launcher", "--config", config)

    def end_kernels_argv(self, name: str) -> tuple[str, ...]:
        config = str(self.state.config_file(name))
        return (sys.executable, "-m", "holdfast_launcher", "end-kernels", "--config", config)

    def lab_argv(self, *, root: bool) -> tuple[str, ...]:
        """JupyterLab as anybody would start it with ``--gateway-url``. The user's own Jupyter
        configuration stays in force, except for what the tree itself depends on."""
        argv = (
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            f"--gateway-url={self.proxy_urls[0]}",
            f"--ServerApp.ip={LOOPBACK}",
            f"--ServerApp.port={self.ports.lab}",
            "--ServerApp.port_retries=0",
            "--ServerApp.base_url=/",
            f"--ServerApp.root_dir={self.options.root_dir}",
        )
        return (*argv, "--allow-root") if root else argv

    def lab_env(self, env: Mapping[str, str], *, token: str) -> dict[str, str]:
        """``env`` with what the shim needs: every proxy's address and the gateway token."""
        return {
            **env,
            "HOLDFAST_GATEWAY_URLS": ",".join(self.proxy_urls),
            "JUPYTER_GATEWAY_AUTH_TOKEN": token,
            "JUPYTER_TOKEN_FILE": str(self.state.secret_file(LAB_TOKEN)),
        }


def child_env(env: Mapping[str, str]) -> dict[str, str]:
    """What etcd, proxies and launchers inherit: not the variables that would configure them,
    and not a token that the person gave to `holdfast up` through its environment."""
    return {
        name: value
        for name, value in env.items()
        if not name.startswith(("ETCD_", "HOLDFAST_")) and name not in _LAB_ONLY
    }


_LAB_ONLY = frozenset({"JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE", "JUPYTER_GATEWAY_AUTH_TOKEN"})


def _url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"
