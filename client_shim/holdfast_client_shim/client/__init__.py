"""Kernels behind Holdfast for nbclient, papermill, ``jupyter execute`` and nbconvert.

::

    NotebookClient(notebook, kernel_manager_class=HoldfastKernelManager).execute()

Where the gateway is, and the token, come from ``JUPYTER_GATEWAY_*`` and ``HOLDFAST_GATEWAY_URLS``
or the configuration of ``GatewayClient``, as for a Jupyter Server; none of those needs to run.
Nothing is imported before it is asked for: jupyter_client brings pyzmq, which is not used here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .defaults import make_default
    from .kernel_client import HoldfastKernelClient
    from .manager import HoldfastKernelManager

__all__ = ["HoldfastKernelClient", "HoldfastKernelManager", "make_default"]

_WHERE = {
    "HoldfastKernelClient": ".kernel_client",
    "HoldfastKernelManager": ".manager",
    "make_default": ".defaults",
}


def __getattr__(name: str) -> Any:
    """PEP 562. Raises AttributeError."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name], __name__), name)
