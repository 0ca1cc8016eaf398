"""What link and load put in place, in real ServerApp objects that serve nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jsonschema import ValidationError
from jupyter_server.gateway.connections import GatewayWebSocketConnection
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

from holdfast_client_shim.server import extension
from holdfast_client_shim.server.client import HoldfastGatewayClient
from holdfast_client_shim.server.connection import HoldfastWebSocketConnection
from holdfast_client_shim.server.events import SCHEMA_ID
from holdfast_client_shim.server.kernelspecs import HoldfastKernelSpecManager
from holdfast_client_shim.server.managers import (
    HoldfastKernelManager,
    HoldfastMappingKernelManager,
)
from holdfast_client_shim.stream.board import as_event
from holdfast_client_shim.stream.status import Resumption, StreamState, StreamStatus
from support.cluster import clean_env
from support.server_app import URL, server


def test_gateway_url_is_all_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}/base/") as app:
        assert type(app.kernel_manager) is HoldfastMappingKernelManager
        assert type(app.kernel_spec_manager) is HoldfastKernelSpecManager
        assert app.kernel_websocket_connection_class is HoldfastWebSocketConnection
        assert app.web_app.settings["kernel_websocket_connection_class"] is (
            HoldfastWebSocketConnection
        )
        assert app.kernel_manager.kernel_manager_class.endswith("HoldfastKernelManager")
        client = GatewayClient.instance()
        assert type(client) is HoldfastGatewayClient
        assert app.gateway_config is client
        assert client.parent is app
        assert [e.url for e in client.pool.endpoints] == [f"{URL}/base"]
        assert client.kernel_path("a b", "restart") == "/api/kernels/a%20b/restart"


def test_without_a_gateway_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(tmp_path, monkeypatch) as app:
        assert app.kernel_websocket_connection_class is ZMQChannelsWebsocketConnection
        assert type(GatewayClient.instance()) is GatewayClient


def test_without_a_gateway_nothing_is_imported() -> None:
    """In an interpreter of its own: here the modules are loaded already."""
    code = (
        "import sys, types, holdfast_client_shim as shim\n"
        "app = types.SimpleNamespace(config={})\n"
        "shim._link_jupyter_server_extension(app)\n"
        "shim._load_jupyter_server_extension(app)\n"
        "print([m for m in sys.modules if m.startswith(('tornado', 'tenacity', 'holdfast_'))])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_env(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['holdfast_client_shim']"


def test_classes_of_the_user_stay_and_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    option = (
        "--ServerApp.kernel_websocket_connection_class="
        "jupyter_server.gateway.connections.GatewayWebSocketConnection"
    )
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}", option) as app:
        assert app.kernel_websocket_connection_class is GatewayWebSocketConnection
        assert type(app.kernel_manager) is HoldfastMappingKernelManager
        said = _said_at_load(app, caplog)
        assert "not fully active" in said
        assert "jupyter_server.gateway.connections.GatewayWebSocketConnection" in said


def test_another_extension_that_replaces_us_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        assert "holdfast: active" in _said_at_load(app, caplog)
        app.kernel_websocket_connection_class = GatewayWebSocketConnection
        assert "not fully active" in _said_at_load(app, caplog)


def _said_at_load(app: ServerApp, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    app.log.addHandler(caplog.handler)
    app.log.setLevel(logging.INFO)
    try:
        extension.report(app)
    finally:
        app.log.removeHandler(caplog.handler)
    return caplog.text


def test_urls_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = f"{URL}, http://127.0.0.1:10/ "
    with server(tmp_path, monkeypatch, urls=urls) as app:
        client = app.gateway_config
        assert client.url == URL
        assert [e.url for e in client.pool.endpoints] == [URL, "http://127.0.0.1:10"]
        assert client.pool.endpoints[1].ws_url == "ws://127.0.0.1:10"


def test_a_client_made_too_early_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GatewayClient.instance()
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        assert type(app.gateway_config) is HoldfastGatewayClient


def test_options_of_the_gateway_client_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--GatewayClient.auth_token=secret", "--GatewayClient.auth_scheme=Bearer",
               "--GatewayClient.kernels_endpoint=/x/kernels",
               "--GatewayClient.ca_certs=/nowhere.pem",
               "--GatewayClient.ws_url=ws://127.0.0.1:11/sockets"]  # fmt: skip
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}", *options) as app:
        client = app.gateway_config
        target = client._target(client.pool.preferred, "k", "s/1")
        assert target.url == "ws://127.0.0.1:11/sockets/x/kernels/k/channels?session_id=s%2F1"
        assert target.headers["Authorization"] == "Bearer secret"
        assert "secret" not in repr(target)
        assert client.load_connection_args()["ca_certs"] == "/nowhere.pem"
        client.auth_token = "renewed"
        again = client._target(client.pool.preferred, "k", "s")
        assert again.headers["Authorization"] == "Bearer renewed", "each dial has a fresh token"


def test_environment_of_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_ID", "the server's own, not this kernel's")
    monkeypatch.setenv("SECRET", "not for kernels")
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}"):
        env = HoldfastKernelManager._environment({"cwd": "/w", "env": {"KERNEL_X": "1"}})
        other = HoldfastKernelManager._environment({})
    assert len(env["KERNEL_ID"]) == 36
    assert env["KERNEL_ID"] != other["KERNEL_ID"]
    assert (env["KERNEL_WORKING_DIR"], env["KERNEL_X"]) == ("/w", "1")
    assert "SECRET" not in env


def test_each_dial_and_each_call_has_a_fresh_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewer = "--GatewayClient.gateway_token_renewer_class=support.token_renewer.CountingRenewer"
    options = [renewer, "--GatewayClient.auth_token=first"]
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}", *options) as app:
        client = app.gateway_config
        dials = [
            client._target(client.pool.preferred, "k", "s").headers["Authorization"]
            for _ in range(2)
        ]
        call = client.load_connection_args(headers={})["headers"]["Authorization"]
        assert len({*dials, call}) == 3, "none is used twice"
        assert all(value.startswith("token first-") for value in [*dials, call])


def test_the_event_schema_is_one_that_jupyter_events_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every status that we can make validates against it."""
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        schemas = app.event_logger.schemas
        assert str(schemas.get(SCHEMA_ID).version) == "1"
        for state in StreamState:
            for resumed in (None, Resumption(0.1, 14, 0)):
                status = StreamStatus(state, 1.0, "why", URL, resumed)
                event = as_event(("k", "s"), status, now=2.0, wall=datetime.now(UTC))
                schemas.validate_event(SCHEMA_ID, event)
        with pytest.raises(ValidationError):
            schemas.validate_event(SCHEMA_ID, {**event, "state": "well"})


def test_a_session_brings_no_kernel_id_of_the_servers_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jupyter_server gives a session's kernel the server's whole environment."""
    monkeypatch.setenv("KERNEL_ID", "that of the kernel this server runs in")
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}"):
        environment = HoldfastKernelManager._environment
        ids = {environment({"env": dict(os.environ)})["KERNEL_ID"] for _ in range(2)}
        assert len(ids - {os.environ["KERNEL_ID"]}) == 2
        assert environment({"env": {"KERNEL_ID": "chosen"}})["KERNEL_ID"] == "chosen"
        assert environment({"kernel_id": "named"})["KERNEL_ID"] == "named"
