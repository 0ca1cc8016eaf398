"""The hook into jupyter_server: what is put in place at link, and what is verified at load.

Link comes after the configuration was read and before the managers exist; load comes when all
is built. Nothing that the user chose is replaced; load says aloud what that costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_server.gateway.gateway_client import GatewayClient

from .client import HoldfastGatewayClient
from .connection import HoldfastWebSocketConnection
from .managers import HoldfastKernelSpecManager, HoldfastMappingKernelManager

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

_CLASSES: dict[str, type] = {
    "kernel_manager_class": HoldfastMappingKernelManager,
    "kernel_spec_manager_class": HoldfastKernelSpecManager,
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
    """Compare what is installed with what should be, and say so in one line."""
    foreign = [
        f"{trait} is {getattr(serverapp, trait).__module__}.{getattr(serverapp, trait).__name__}"
        for trait, cls in _CLASSES.items()
        if not issubclass(getattr(serverapp, trait), cls)
    ]
    client: object = serverapp.gateway_config
    if isinstance(client, HoldfastGatewayClient) and not foreign:
        urls = ", ".join(endpoint.name for endpoint in client.pool.endpoints)
        serverapp.log.info("holdfast: active; notebooks resume through %s", urls)
        return
    if not isinstance(client, HoldfastGatewayClient):
        foreign.append(f"the gateway client is {type(client).__module__}.{type(client).__name__}")
    serverapp.log.warning(
        "holdfast: not fully active, notebooks may not survive a gateway's death: %s "
        "(set by the configuration or by another extension)",
        "; ".join(foreign),
    )
