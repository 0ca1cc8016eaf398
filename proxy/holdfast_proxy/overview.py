"""The whole cluster at one moment, as values: what administrators see, and nothing they may not.

Between ``ownership/overview``, which finds all this out, and ``edge/admin``, which answers with
it. ``Overview.document`` is the JSON of docs/reference/wire.md, "Administration"; the cluster
page and the command line are built against it, so fields are added and never renamed. Nothing
here reads a clock or does I/O. No secret has a field here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: Of the document below. Raised only when an older reader would misunderstand it.
SCHEMA: Final = 1
READY, DEGRADED, DRAINING, UNREACHABLE = "ready", "degraded", "draining", "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeState:
    """What only the edge of a proxy knows of it. ``status`` and ``message`` as in ``ProxyView``."""

    tunnels: int = 0
    status: str = READY
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdView:
    """``reachable``: it answered this proxy a moment ago. ``lease_age``: seconds since the last
    renewal of this proxy's lease was sent that etcd has answered; None without a lease.
    ``warnings``: sentences for an operator."""

    reachable: bool
    version: str | None
    warnings: Sequence[str]
    endpoints: Sequence[str]
    lease_age: float | None

    def document(self) -> dict[str, Any]:
        return {
            "reachable": self.reachable,
            "version": self.version,
            "warnings": list(self.warnings),
            "endpoints": list(self.endpoints),
            "lease_age": None if self.lease_age is None else round(self.lease_age, 2),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyView:
    """One proxy. ``status``: ready, degraded, draining or unreachable; ``message`` explains it.
    ``tunnels`` None: it did not say. ``role``: in active-passive mode leader or passive."""

    id: str
    url: str
    version: str
    boot_id: str
    is_self: bool
    status: str
    message: str
    tunnels: int | None
    owned: int
    role: str | None = None

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "url": self.url,
            "version": self.version,
            "boot_id": self.boot_id,
            "self": self.is_self,
            "status": self.status,
            "message": self.message,
            "tunnels": self.tunnels,
            "owned": self.owned,
            "role": self.role,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherView:
    """One launcher. ``url`` and ``engine`` are empty for one that is known by its kernels only.
    ``last_seen``: ISO 8601, of its last heartbeat to any proxy that we could ask."""

    id: str
    url: str
    engine: str
    labels: Mapping[str, Any]
    capacity: int | None
    kernels: int
    alive: bool
    last_seen: str | None

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "url": self.url,
            "engine": self.engine,
            "labels": dict(self.labels),
            "capacity": {"kernels": self.capacity},
            "kernels": self.kernels,
            "alive": self.alive,
            "last_seen": self.last_seen,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """How full a kernel's message log is. ``size`` and ``limit`` are bytes, ``head`` the newest
    seq, ``floor`` the newest that is gone; ``lost``: messages dropped before all had read them."""

    size: int
    limit: int | None
    head: int
    floor: int
    lost: int = 0

    def document(self) -> dict[str, Any]:
        return {
            "bytes": self.size,
            "limit": self.limit,
            "head": self.head,
            "floor": self.floor,
            "lost": self.lost,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelView:
    """One kernel. ``state``: starting, idle, busy, restarting, unreachable, dead, deleting or
    unknown; ``reason``: why, where there is something to say."""

    id: str
    name: str
    user: str
    launcher: str
    owner: str | None
    state: str
    reason: str | None
    last_activity: str | None
    connections: int | None
    incarnation: int
    started: str | None
    changed: str
    log: LogView | None

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "user": self.user,
            "launcher": self.launcher,
            "owner": self.owner,
            "state": self.state,
            "reason": self.reason,
            "last_activity": self.last_activity,
            "connections": self.connections,
            "incarnation": self.incarnation,
            "started": self.started,
            "changed": self.changed,
            "log": None if self.log is None else self.log.document(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the timeline. ``facts``: what a picture needs besides (``from``, ``token`` …)."""

    time: str
    kind: str
    kernel: str | None
    proxy: str | None
    launcher: str | None
    detail: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            **self.facts,
            "time": self.time,
            "kind": self.kind,
            "kernel": self.kernel,
            "proxy": self.proxy,
            "launcher": self.launcher,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The cluster. ``timeline`` is complete as far as it is kept, newest last."""

    cluster: str
    proxy_id: str
    mode: str
    era: int
    time: str
    etcd: EtcdView
    proxies: Sequence[ProxyView]
    launchers: Sequence[LauncherView]
    kernels: Sequence[KernelView]
    timeline: Sequence[Line]

    def document(self, *, timeline: int) -> dict[str, Any]:
        """The JSON object, with the newest ``timeline`` lines."""
        lines = self.timeline[-timeline:] if timeline > 0 else ()
        return {
            "version": SCHEMA,
            "cluster": self.cluster,
            "self": self.proxy_id,
            "mode": self.mode,
            "era": self.era,
            "time": self.time,
            "etcd": self.etcd.document(),
            "proxies": [proxy.document() for proxy in self.proxies],
            "launchers": [launcher.document() for launcher in self.launchers],
            "kernels": [kernel.document() for kernel in self.kernels],
            "timeline": [line.document() for line in lines],
        }


class Administration(ABC):
    """What an administrator may ask of a cluster, behind ``Cluster.administration``.

    Methods raise ``errors.ProxyError`` subclasses and nothing else on purpose.
    """

    @abstractmethod
    def own_state(self, edge: EdgeState) -> dict[str, Any]:
        """What this proxy says of itself (``GET /holdfast/v1/proxy``). Needs no other process."""

    @abstractmethod
    async def overview(self, edge: EdgeState) -> Overview:
        """The cluster now. Answers within about a second whatever else is away, from the cache
        where it must. Raises Unavailable before the first sync."""

    @abstractmethod
    async def checks(self) -> dict[str, Any]:
        """What this proxy can reach: the others, the launchers, etcd
        (``GET /holdfast/v1/checks``)."""

    @abstractmethod
    async def pass_drain(self, proxy_id: str) -> None:
        """Ask another proxy to drain. Raises NotFound, Unavailable."""
