"""The kernel side of a keeper: the process, its sockets, its incarnations. Opens nothing."""

from __future__ import annotations

from ..config import KeeperConfig
from ..ports import KernelHost, KernelListener
from .host import Host

__all__ = ["build_kernel_host"]


def build_kernel_host(config: KeeperConfig, listener: KernelListener) -> KernelHost:
    """The kernel that ``config`` describes, not started. Call on the keeper's event loop."""
    return Host(config, listener)
