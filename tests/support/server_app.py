"""Real ServerApp objects that serve nothing, with our extension alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.serverapp import ServerApp

from holdfast_client_shim.server.client import HoldfastGatewayClient

URL = "http://127.0.0.1:9"


@contextmanager
def server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *argv: str, urls: str | None = None
) -> Iterator[ServerApp]:
    """A ServerApp as initialised, with our extension alone."""
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        monkeypatch.setenv(f"JUPYTER_{name}", str(folder / name))
    for name in ("JUPYTER_GATEWAY_URL", "HOLDFAST_GATEWAY_URLS"):
        monkeypatch.delenv(name, raising=False)
    if urls is not None:
        monkeypatch.setenv("HOLDFAST_GATEWAY_URLS", urls)
    monkeypatch.setenv("JUPYTER_NO_CONFIG", "1")
    app = ServerApp(jpserver_extensions={"holdfast_client_shim": True})
    try:
        app.initialize(
            ["--allow-root", f"--ServerApp.root_dir={folder}", *argv],
            find_extensions=False,
            new_httpserver=False,
        )
        yield app
    finally:
        manager = getattr(app, "session_manager", None)
        if manager is not None:
            manager.close()  # else whichever thread collects it does: SQLite forbids another's
        client = HoldfastGatewayClient._instance
        if isinstance(client, HoldfastGatewayClient) and client.memory is not None:
            client.memory._file.release()
        ServerApp.clear_instance()
        GatewayClient.clear_instance()
        HoldfastGatewayClient.clear_instance()
