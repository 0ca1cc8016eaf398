"""The one face of ownership, placement and lifecycle towards the edge.

``edge/`` (REST, websockets) talks to this and to nothing behind it; ``ownership/`` implements
it; tests of the edge put a fake here. Nothing here knows HTTP, nothing behind it knows clients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .overview import Administration


@dataclass(frozen=True, slots=True)
class StartRequest:
    """POST /api/kernels after validation. ``kernel_id`` is the client's KERNEL_ID or new.

    ``forwarded_by``: the proxy that passed it on; such a start is never passed on again.
    """

    kernel_id: str
    user: str
    spec_name: str | None
    path: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None
    forwarded_by: str | None = None


@dataclass(frozen=True, slots=True)
class LifecycleCall:
    """What accompanies restart, interrupt and delete.

    ``request_id``: the keeper remembers the answer, so that a retry acts once; without it a call
    that may have been sent is never retried. ``after``: (session, seq) pairs that the keeper
    first accepts. ``deadline``: CLOCK_BOOTTIME seconds; checked just before sending.
    ``forwarded_by``: the proxy that passed it on; such a call is never passed on again.
    """

    request_id: str | None = None
    after: tuple[tuple[str, int], ...] = ()
    deadline: float | None = None
    forwarded_by: str | None = None


@dataclass(frozen=True, slots=True)
class KernelModel:
    """``/api/kernels`` model. ``last_activity`` is ISO 8601 UTC with microseconds and Z."""

    id: str
    name: str
    last_activity: str
    execution_state: str
    connections: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class KeeperEndpoint:
    """Where a kernel's keeper listens. ``fingerprint``: SHA-256 hex of its certificate, or None
    for plain HTTP, which is allowed on loopback only. ``credential`` is a secret."""

    kernel_id: str
    host: str
    port: int
    fingerprint: str | None
    credential: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Waiting:
    """No keeper can speak yet; ``reason`` is shown to the user."""

    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The kernel is dead on evidence; ``reason`` is shown to the user."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelOutput:
    """What a kernel and its keeper wrote to stdout and stderr: ``output`` has ``kernel`` and
    ``keeper``, or nothing when the launcher has it no more. ``reason``: why it is dead."""

    state: str
    reason: str | None
    launcher: str
    output: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    id: str
    url: str


class Readiness(Enum):
    READY = "ready"
    DEGRADED = "degraded"  # no lease: open notebooks go on, /readyz stays 200
    NOT_READY = "not ready"  # before the first sync, in drain, or passive


class Cluster(ABC):
    """All methods raise ``errors.ProxyError`` subclasses and nothing else on purpose."""

    proxy_id: str
    #: Random per process; whoami shows it, so that a peer sees a restart.
    boot_id: str

    @property
    @abstractmethod
    def administration(self) -> Administration:
        """What only administrators may ask; the edge sees to that."""

    @abstractmethod
    def readiness(self) -> tuple[Readiness, str]:
        """The state and a sentence that explains it."""

    @abstractmethod
    def proxies(self) -> list[ProxyInfo]:
        """Live proxies as last seen, this one included."""

    @abstractmethod
    async def list_kernels(self, user: str | None) -> list[KernelModel]:
        """The user's kernels (None: everybody's): the whole list, or raises Unavailable."""

    @abstractmethod
    async def get_kernel(self, kernel_id: str, user: str | None) -> KernelModel:
        """Asks the keeper. NotFound only after a linearizable read."""

    @abstractmethod
    async def start_kernel(self, request: StartRequest) -> KernelModel:
        """Idempotent by ``kernel_id``. Returns when the kernel answers, or raises."""

    @abstractmethod
    async def interrupt_kernel(
        self, kernel_id: str, user: str | None, call: LifecycleCall
    ) -> None: ...

    @abstractmethod
    async def restart_kernel(
        self, kernel_id: str, user: str | None, call: LifecycleCall
    ) -> KernelModel: ...

    @abstractmethod
    async def delete_kernel(
        self, kernel_id: str, user: str | None, call: LifecycleCall
    ) -> None: ...

    @abstractmethod
    async def locate(self, kernel_id: str, user: str | None) -> KeeperEndpoint | Waiting | Dead:
        """Where to tunnel to. From the cache when it knows the kernel, so that it needs no etcd."""

    @abstractmethod
    async def kernel_output(self, kernel_id: str, user: str | None, lines: int) -> KernelOutput:
        """The last ``lines`` lines of each, also of a kernel that died or never started."""

    @abstractmethod
    async def wait_changed(self, kernel_id: str, timeout: float) -> None:
        """Return when the kernel's record changed, or after ``timeout`` seconds."""

    @abstractmethod
    async def report_unreachable(self, endpoint: KeeperEndpoint, error: str) -> None:
        """The edge could not dial a keeper; asks the launcher for evidence."""

    @abstractmethod
    def kernelspecs(self) -> Mapping[str, Any]:
        """Merged ``{"default": name, "kernelspecs": {name: {...}}}``; Unavailable before any."""

    @abstractmethod
    async def kernelspec_resource(self, name: str, path: str) -> tuple[bytes, str]:
        """(content, MIME type) of a kernelspec's file."""

    @abstractmethod
    async def heartbeat(
        self, launcher_id: str, credential: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A launcher's heartbeat; the answer for it. Raises Unauthorized."""

    @abstractmethod
    async def start(self) -> None:
        """Connect, get a lease, sync, begin the background tasks."""

    @abstractmethod
    async def drain(self) -> None:
        """Release ownership by compare-and-swap and revoke the lease; kernels go on."""

    @abstractmethod
    async def close(self) -> None:
        """Stop the background tasks. Idempotent."""
