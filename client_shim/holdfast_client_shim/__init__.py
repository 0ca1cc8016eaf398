"""A jupyter_server extension whose gateway websockets resume by themselves.

This module is imported by every Jupyter Server in whose environment Holdfast is installed, also
by those that use no gateway: it imports nothing until it is sure that it is wanted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

__version__ = "0.1.0"

_URL_VARIABLES = ("JUPYTER_GATEWAY_URL", "HOLDFAST_GATEWAY_URLS")
_SECTIONS = ("GatewayClient", "HoldfastGatewayClient")


def _wanted(serverapp: ServerApp) -> bool:
    """Whether a gateway is configured, by the means that ``GatewayClient.url`` has."""
    config: Any = serverapp.config
    return any(config.get(section, {}).get("url") for section in _SECTIONS) or any(
        os.environ.get(name) for name in _URL_VARIABLES
    )


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "holdfast_client_shim"}]


def _link_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Called before the server makes its managers: the only moment early enough to choose them."""
    if _wanted(serverapp):
        from .server.extension import link

        link(serverapp)


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Called when the server is complete: says what is really in place."""
    if _wanted(serverapp):
        from .server.extension import load

        load(serverapp)
