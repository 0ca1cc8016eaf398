"""Kernel Gateway 3.0.1 as a separate process: the peer that the benchmark measures beside us."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.cluster import START_SECONDS, clean_env, http_status
from support.processes import ManagedProcess, free_port, wait_until


@dataclass(frozen=True)
class Gateway:
    url: str
    token: str
    process: ManagedProcess

    def wait_ready(self) -> None:
        wait_until(
            lambda: http_status(f"{self.url}/api/kernelspecs", token=self.token) == 200,
            seconds=START_SECONDS,
            what=f"Kernel Gateway:\n{self.process.tail()}",
        )


@contextmanager
def kernel_gateway(folder: Path) -> Iterator[Gateway]:
    """Start it on loopback, rate limits off (they would drop most of a burst)."""
    folder.mkdir(parents=True, exist_ok=True)
    url, token = f"http://127.0.0.1:{free_port()}", secrets.token_urlsafe(16)
    command = [
        sys.executable, "-m", "kernel_gateway", "--KernelGatewayApp.ip=127.0.0.1",
        f"--KernelGatewayApp.port={url.rsplit(':', 1)[1]}",
        "--ZMQChannelsWebsocketConnection.limit_rate=False",
    ]  # fmt: skip
    env = clean_env(
        KG_AUTH_TOKEN=token,
        JUPYTER_CONFIG_DIR=str(folder / "config"),
        JUPYTER_DATA_DIR=str(folder / "data"),
        JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
    )
    process = ManagedProcess("kernel-gateway", command, log=folder / "gateway.log", env=env)
    gateway = Gateway(url, token, process)
    process.start()
    try:
        gateway.wait_ready()
        yield gateway
    finally:
        process.stop()
