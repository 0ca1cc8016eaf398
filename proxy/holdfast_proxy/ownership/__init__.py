"""Ownership, placement and lifecycle of kernels: what stands behind the ``Cluster`` face."""

from __future__ import annotations

from holdfast_proxy.cluster import Cluster
from holdfast_proxy.config import ProxyConfig
from holdfast_proxy.ownership.assembly import assemble, connect_store

__all__ = ["build_cluster"]


def build_cluster(config: ProxyConfig, *, proxy_url: str | None = None) -> Cluster:
    """The cluster of this proxy, on the running event loop; ``start`` connects it.

    ``proxy_url``: where other proxies reach this one; by default ``config.url``. Raises
    ConfigError.
    """
    return assemble(config, proxy_url=proxy_url or config.url, store=connect_store(config))
