"""The hook into jupyter_server: what is put in place at link, and what is verified at load.

Link comes after the configuration was read and before the managers exist; load comes when all
is built and before anything is answered. Nothing that the user chose is replaced; load says
aloud what that costs.
"""

# jupyter_server's objects have few annotations:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.utils import url_path_join

from .. import __version__
from .client import HoldfastGatewayClient
from .connection import HoldfastWebSocketConnection
from .events import SCHEMA, SCHEMA_ID
from .handlers import PATH, StreamsHandler
from .kernelspecs import HoldfastKernelSpecManager
from .managers import HoldfastMappingKernelManager
from .memory import recall
from .sessions import HoldfastSessionManager

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

_CLASSES: dict[str, type] = {
    "kernel_manager_class": HoldfastMappingKernelManager,
    "kernel_spec_manager_class": HoldfastKernelSpecManager,
    "session_manager_class": HoldfastSessionManager,
    "kernel_websocket_connection_class": HoldfastWebSocketConnection,
}


def _chosen_by_user(serverapp: ServerApp, trait: str) -> bool:
    config: Any = serverapp.config
    sections = [cls.__name__ for cls in type(serverapp).mro()]
    return any(trait in config.get(section, {}) for section in sections)


def link(serverapp: ServerApp) -> None:
    """Make our client the singleton and our classes the defaults."""
    if GatewayClient.initialized() and not isinstance(
        GatewayClient.instance(), HoldfastGatewayClient
    ):
        serverapp.log.warning("holdfast: replacing a gateway client that was made before link")
        GatewayClient.clear_instance()
    HoldfastGatewayClient.instance(parent=serverapp)
    for trait, cls in _CLASSES.items():
        if not _chosen_by_user(serverapp, trait):
            setattr(serverapp, trait, cls)


def load(serverapp: ServerApp) -> None:
    """Take the last run's kernels in, offer the status, and say what is in place."""
    client: object = serverapp.gateway_config
    if isinstance(client, HoldfastGatewayClient):
        _publish(serverapp, client)
        refusal = _remember(serverapp, client)
        _serve(serverapp, client, refusal)
        if refusal:
            serverapp.log.warning(
                "holdfast: nothing outlives this notebook server: %s. Its kernels go on without "
                "it, but the next run will not know them.",
                refusal,
            )
    report(serverapp)


def report(serverapp: ServerApp) -> None:
    """Compare what is installed with what should be, and say so in one line."""
    problems = _foreign(serverapp)
    client: object = serverapp.gateway_config
    if isinstance(client, HoldfastGatewayClient) and not problems:
        urls = ", ".join(endpoint.name for endpoint in client.pool.endpoints)
        serverapp.log.info("holdfast: active; notebooks resume through %s", urls)
        return
    serverapp.log.warning(
        "holdfast: not fully active, notebooks may not survive a gateway's death: %s "
        "(set by the configuration or by another extension)",
        "; ".join(problems),
    )


def _foreign(serverapp: ServerApp) -> list[str]:
    """What somebody put in our place."""
    foreign = []
    for trait, cls in _CLASSES.items():
        found: type = getattr(serverapp, trait)
        if not issubclass(found, cls):
            foreign.append(f"{trait} is {found.__module__}.{found.__name__}")
    client: object = serverapp.gateway_config
    if not isinstance(client, HoldfastGatewayClient):
        foreign.append(f"the gateway client is {type(client).__module__}.{type(client).__name__}")
    return foreign


def _publish(serverapp: ServerApp, client: HoldfastGatewayClient) -> None:
    """Send statuses to the server's event logger."""
    logger: Any = serverapp.event_logger
    logger.register_event_schema(SCHEMA)

    def publish(status: dict[str, Any]) -> None:
        logger.emit(schema_id=SCHEMA_ID, data=status)

    client.publish = publish


def _remember(serverapp: ServerApp, client: HoldfastGatewayClient) -> str:
    """Have the last run's kernels again; otherwise the words why not."""
    kernels, sessions = serverapp.kernel_manager, serverapp.session_manager
    if not isinstance(kernels, HoldfastMappingKernelManager) or not isinstance(
        sessions, HoldfastSessionManager
    ):
        return "another class manages kernels or sessions"
    memory = recall(serverapp, client, kernels, sessions)
    if isinstance(memory, str):
        return memory
    client.memory = memory
    memory.take_in()
    # first of all when the loop runs: the socket is bound by a later callback
    serverapp.io_loop.add_callback(memory.begin)
    return ""


def _serve(serverapp: ServerApp, client: HoldfastGatewayClient, refusal: str) -> None:
    route = url_path_join(serverapp.base_url, PATH)
    document = partial(_streams, serverapp, client, refusal)
    serverapp.web_app.add_handlers(".*$", [(route, StreamsHandler, {"document": document})])


def _streams(serverapp: ServerApp, client: HoldfastGatewayClient, refusal: str) -> dict[str, Any]:
    """What ``StreamsHandler`` answers. ``problems``: why it is not (fully) active."""
    problems = _foreign(serverapp)
    return {
        "active": not problems,
        "version": __version__,
        "gateways": [endpoint.name for endpoint in client.pool.endpoints],
        "streams": client.statuses(),
        "problems": problems + ([f"nothing outlives a restart: {refusal}"] if refusal else []),
    }
