"""An administration in memory: an overview that a test changes as it likes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdfast_proxy.errors import ProxyError
from holdfast_proxy.overview import (
    Administration,
    EdgeState,
    EtcdView,
    KernelView,
    LauncherView,
    Line,
    LogView,
    Overview,
    ProxyView,
)

STAMP = "2026-01-02T03:04:05.000006Z"
KERNEL = "11111111-1111-4111-8111-111111111111"


def proxy_view(proxy_id: str, **changes: Any) -> ProxyView:
    """A proxy that is well."""
    view = ProxyView(
        id=proxy_id,
        url=f"http://{proxy_id}.example:8888",
        version="0.1.0",
        boot_id=f"boot-{proxy_id}",
        is_self=proxy_id == "p1",
        status="ready",
        message="",
        tunnels=2,
        owned=1,
    )
    return replace(view, **changes)


def kernel_view(kernel_id: str = KERNEL, **changes: Any) -> KernelView:
    """An idle kernel that is well."""
    view = KernelView(
        id=kernel_id,
        name="python3",
        user="ada",
        launcher="node-1",
        owner="p1",
        state="idle",
        reason=None,
        last_activity=STAMP,
        connections=1,
        incarnation=1,
        started=STAMP,
        changed=STAMP,
        log=LogView(size=2048, limit=1 << 30, head=100, floor=40),
    )
    return replace(view, **changes)


def launcher_view(launcher_id: str = "node-1", **changes: Any) -> LauncherView:
    """A launcher that is well."""
    view = LauncherView(
        id=launcher_id,
        url=f"https://{launcher_id}.example:7000",
        engine="local",
        labels={"zone": "a"},
        capacity=10,
        kernels=1,
        alive=True,
        last_seen=STAMP,
    )
    return replace(view, **changes)


def overview(**changes: Any) -> Overview:
    """A cluster of two proxies, one launcher and one kernel, all of it well."""
    view = Overview(
        cluster="default",
        proxy_id="p1",
        mode="active-active",
        era=1,
        time=STAMP,
        etcd=EtcdView(
            reachable=True,
            version="3.5.33",
            warnings=(),
            endpoints=("http://127.0.0.1:2379",),
            lease_age=0.5,
        ),
        proxies=(proxy_view("p1"), proxy_view("p2")),
        launchers=(launcher_view(),),
        kernels=(kernel_view(),),
        timeline=tuple(
            Line(
                time=STAMP,
                kind="started",
                kernel=KERNEL,
                proxy="p1",
                launcher="node-1",
                detail=f"line {n}",
            )
            for n in range(3)
        ),
    )
    return replace(view, **changes)


class FakeAdministration(Administration):
    """Answers with ``view``, or raises ``failure``; ``looks`` counts."""

    def __init__(self) -> None:
        self.view = overview()
        self.failure: ProxyError | None = None
        self.looks = 0
        self.drained: list[str] = []
        self.edges: list[EdgeState] = []

    def own_state(self, edge: EdgeState) -> dict[str, Any]:
        return {**proxy_view("p1", tunnels=edge.tunnels, status=edge.status).document()}

    async def overview(self, edge: EdgeState) -> Overview:
        self.looks += 1
        self.edges.append(edge)
        if self.failure is not None:
            raise self.failure
        return self.view

    async def checks(self) -> dict[str, Any]:
        return {"version": 1, "self": "p1", "proxies": [], "launchers": []}

    async def pass_drain(self, proxy_id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.drained.append(proxy_id)
