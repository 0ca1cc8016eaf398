"""A pytest plugin for nbclient's own test suite: its kernels run behind Holdfast.

Loaded by ``-p`` in a process of its own, before any test is imported. Some tests name
jupyter_client's managers; they get ours under those names too, so that nothing runs beside
Holdfast unnoticed.
"""

from __future__ import annotations

import jupyter_client
import jupyter_client.manager
import nbclient.client  # noqa: F401 - it must have bound jupyter_client's own names before

from holdfast_client_shim.client import HoldfastKernelManager, make_default


def pytest_configure() -> None:
    make_default()
    for module in (jupyter_client, jupyter_client.manager):
        for name in ("KernelManager", "AsyncKernelManager"):
            setattr(module, name, HoldfastKernelManager)
