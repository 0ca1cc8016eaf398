"""The servers that the suite is run against: each a real one, of separate processes."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.cluster import START_SECONDS, Cluster, clean_env, http_status
from support.processes import ManagedProcess, free_port, wait_until

#: Not "/", so that everything is seen to work below a prefix.
BASE_URL = "/team/notebooks/"


@dataclass(frozen=True)
class Peer:
    url: str
    token: str


class PrefixedCluster(Cluster):
    """A cluster whose proxies are known to everybody by an address with a path."""

    def _url(self, name: str) -> str:
        url = super()._url(name)
        return url + BASE_URL.rstrip("/") if name.startswith("proxy") else url


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two proxies below a prefix, etcd and a launcher."""
    folder = tmp_path_factory.mktemp("conformance") / "holdfast"
    made = PrefixedCluster(folder, proxy_toml=f'base_url = "{BASE_URL}"')
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def jupyter_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with _peer(
        tmp_path_factory.mktemp("jupyter-server"),
        [
            "jupyter_server", "--ServerApp.ip=127.0.0.1", "--no-browser", "--allow-root",
            "--ServerApp.port={port}", "--ServerApp.port_retries=0",
            "--IdentityProvider.token={token}", "--ServerApp.root_dir={folder}",
            # Ours is installed beside it and does nothing without a gateway; to be sure.
            "--ServerApp.jpserver_extensions={{'holdfast_client_shim': False}}",
        ],
    ) as peer:  # fmt: skip
        yield peer


@pytest.fixture(scope="session")
def kernel_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with _peer(
        tmp_path_factory.mktemp("kernel-gateway"),
        [
            "kernel_gateway", "--KernelGatewayApp.ip=127.0.0.1",
            "--KernelGatewayApp.port={port}", "--KernelGatewayApp.port_retries=0",
            "--KernelGatewayApp.auth_token={token}",
            # Both are off by default; what is off cannot be compared.
            "--JupyterWebsocketPersonality.list_kernels=True",
        ],
    ) as peer:  # fmt: skip
        yield peer


@contextmanager
def _peer(folder: Path, command: list[str]) -> Iterator[Peer]:
    url, token = f"http://127.0.0.1:{free_port()}", secrets.token_urlsafe(16)
    values = {"port": urlsplit(url).port, "token": token, "folder": folder}
    arguments = [item.format(**values) for item in command]
    env = clean_env(
        JUPYTER_CONFIG_DIR=str(folder / "config"),
        JUPYTER_DATA_DIR=str(folder / "data"),
        JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
        JUPYTER_PLATFORM_DIRS="0",
    )
    log = folder / "server.log"
    process = ManagedProcess(command[0], [sys.executable, "-m", *arguments], log=log, env=env)
    process.start()
    try:
        wait_until(
            lambda: http_status(f"{url}/api/kernelspecs", token=token) == 200,
            seconds=START_SECONDS,
            what=f"{command[0]}:\n{process.tail()}",
        )
        yield Peer(url, token)
    finally:
        process.stop()
