"""A cluster in memory: what the edge sees of ownership, and nothing of how it comes about."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast_proxy.cluster import (
    Cluster,
    Dead,
    KeeperEndpoint,
    KernelModel,
    KernelOutput,
    LifecycleCall,
    ProxyInfo,
    Readiness,
    StartRequest,
    Waiting,
)
from holdfast_proxy.errors import NotFound, ProxyError, Unauthorized
from support.fake_administration import FakeAdministration

ACTIVITY = "2026-01-02T03:04:05.000006Z"


@dataclass
class FakeKernel:
    """A kernel of ``user``; ``located`` is what ``locate`` answers, or raises."""

    model: KernelModel
    user: str
    located: KeeperEndpoint | Waiting | Dead | ProxyError = field(
        default_factory=lambda: Waiting("queued")
    )


class FakeCluster(Cluster):
    """Keeps the contract of ``Cluster`` for one process. ``fail`` makes the next calls raise."""

    def __init__(self, proxy_id: str = "p1") -> None:
        self.proxy_id = proxy_id
        self.boot_id = f"boot-{proxy_id}"
        self.kernels: dict[str, FakeKernel] = {}
        self.calls: list[tuple[str, str, LifecycleCall]] = []
        self.starts: list[StartRequest] = []
        self.heartbeats: list[tuple[str, Mapping[str, Any]]] = []
        self.unreachable: list[tuple[KeeperEndpoint, str]] = []
        self.fail: dict[str, Exception] = {}
        self.state = (Readiness.READY, "in sync")
        self.drained = False
        self.closed = False
        self.started = asyncio.Event()
        self.hold_starts: asyncio.Event | None = None
        self.resources: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.specs: dict[str, Any] = {"default": "python3", "kernelspecs": {}}
        self.admin = FakeAdministration()
        self._changed = asyncio.Condition()

    @property
    def administration(self) -> FakeAdministration:
        return self.admin

    def add(self, kernel_id: str, user: str = "jovyan", **fields: Any) -> FakeKernel:
        model = KernelModel(kernel_id, "python3", ACTIVITY, "idle", 0)
        self.kernels[kernel_id] = FakeKernel(model, user, **fields)
        return self.kernels[kernel_id]

    async def put(self, kernel_id: str, located: KeeperEndpoint | Waiting | Dead) -> None:
        """Change what ``locate`` says, and wake who waits for it."""
        self.kernels[kernel_id].located = located
        async with self._changed:
            self._changed.notify_all()

    def readiness(self) -> tuple[Readiness, str]:
        return self.state

    def proxies(self) -> list[ProxyInfo]:
        return [ProxyInfo(self.proxy_id, "http://127.0.0.1:1"), ProxyInfo("p2", "http://x:2")]

    async def list_kernels(self, user: str | None) -> list[KernelModel]:
        self._raise("list")
        return [k.model for k in self.kernels.values() if user in (None, k.user)]

    async def get_kernel(self, kernel_id: str, user: str | None) -> KernelModel:
        self._raise("get")
        return self._kernel(kernel_id, user).model

    async def start_kernel(self, request: StartRequest) -> KernelModel:
        self.starts.append(request)
        self._raise("start")
        if self.hold_starts is not None:
            await self.hold_starts.wait()
        return self.add(request.kernel_id, request.user).model

    async def interrupt_kernel(self, kernel_id: str, user: str | None, call: LifecycleCall) -> None:
        self._called("interrupt", kernel_id, user, call)

    async def restart_kernel(
        self, kernel_id: str, user: str | None, call: LifecycleCall
    ) -> KernelModel:
        self._called("restart", kernel_id, user, call)
        return self.kernels[kernel_id].model

    async def delete_kernel(self, kernel_id: str, user: str | None, call: LifecycleCall) -> None:
        self._called("delete", kernel_id, user, call)
        del self.kernels[kernel_id]

    async def locate(self, kernel_id: str, user: str | None) -> KeeperEndpoint | Waiting | Dead:
        self._raise("locate")
        located = self._kernel(kernel_id, user).located
        if isinstance(located, ProxyError):
            raise located
        return located

    async def kernel_output(self, kernel_id: str, user: str | None, lines: int) -> KernelOutput:
        self._raise("output")
        model = self._kernel(kernel_id, user).model
        text = "\n".join(f"line {n}" for n in range(lines))
        return KernelOutput(
            state=model.execution_state, reason=model.reason, launcher="l1", output={"kernel": text}
        )

    async def wait_changed(self, kernel_id: str, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait()
        except TimeoutError:
            return

    async def report_unreachable(self, endpoint: KeeperEndpoint, error: str) -> None:
        self.unreachable.append((endpoint, error))
        after = self.fail.get("after_report")
        if isinstance(after, ProxyError):
            self.kernels[endpoint.kernel_id].located = after

    def kernelspecs(self) -> Mapping[str, Any]:
        self._raise("kernelspecs")
        return self.specs

    async def kernelspec_resource(self, name: str, path: str) -> tuple[bytes, str]:
        try:
            return self.resources[name, path]
        except KeyError:
            raise NotFound("no such resource") from None

    async def heartbeat(
        self, launcher_id: str, credential: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        if credential != "join":
            raise Unauthorized("wrong credential")
        self.heartbeats.append((launcher_id, body))
        return {"credential": "own", "proxies": [], "ttl": 6.0}

    async def start(self) -> None:
        self._raise("cluster_start")
        self.started.set()

    async def drain(self) -> None:
        self.drained = True
        if "drain" in self.fail:
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True

    def _called(self, what: str, kernel_id: str, user: str | None, call: LifecycleCall) -> None:
        self._raise(what)
        self._kernel(kernel_id, user)
        self.calls.append((what, kernel_id, call))

    def _kernel(self, kernel_id: str, user: str | None) -> FakeKernel:
        kernel = self.kernels.get(kernel_id)
        if kernel is None or user not in (None, kernel.user):
            raise NotFound("there is no such kernel", reason="no_such_kernel")
        return kernel

    def _raise(self, what: str) -> None:
        if what in self.fail:
            raise self.fail[what]
