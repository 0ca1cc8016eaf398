"""A cluster that plays a story for the cluster page: kernels, a failover, a bad day.

Times are real ones (the page compares them with the browser's clock); everything else is fixed.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast_proxy.overview import KernelView, Line, LogView, Overview
from support.fake_administration import (
    FakeAdministration,
    kernel_view,
    launcher_view,
    overview,
    proxy_view,
)

GIB = 1 << 30
USERS = ("ada", "grace", "edsger", "barbara", "donald")
SPECS = ("python3", "python3", "ir", "julia-1.11", "python-gpu")
STATES = ("idle", "busy", "idle", "idle", "busy", "starting", "idle")


def stamp(seconds_ago: float = 0.0) -> str:
    """ISO 8601 of so many seconds ago."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def kernel_id(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"kernel {number}"))


def line(kind: str, ago: float, **fields: Any) -> Line:
    """One line of the timeline, written ``ago`` seconds ago."""
    names = {"kernel": None, "proxy": "proxy-1", "launcher": None, "detail": ""}
    return Line(time=stamp(ago), kind=kind, **{**names, **fields})


def some_kernels(number: int) -> list[KernelView]:
    """Kernels in all common states; with 20 and more, some that need attention."""
    made = [_kernel(n) for n in range(number)]
    if number >= 20:
        made[3] = replace(made[3], state="dead", reason="killed by the kernel's memory limit (OOM)")
        silent = "neither its keeper nor its launcher answers"
        made[7] = replace(made[7], state="unreachable", reason=silent)
        made[11] = replace(made[11], log=LogView(size=int(0.97 * GIB), limit=GIB, head=9, floor=1))
        made[13] = replace(made[13], owner=None)
    return made


def _kernel(n: int) -> KernelView:
    return kernel_view(
        kernel_id(n),
        name=SPECS[n % len(SPECS)],
        user=USERS[(n // 3) % len(USERS)],
        launcher=f"node-{n % 2 + 1}",
        owner=f"proxy-{n % 3 + 1}",
        state=STATES[n % len(STATES)],
        last_activity=stamp(7.0 * n + 1),
        connections=n % 3,
        started=stamp(5000),
        log=LogView(size=(n * 37 % 101) * GIB // 140, limit=GIB, head=n, floor=0),
    )


def quiet_day(*, kernels: int = 6) -> Overview:
    """Three proxies, two launchers, and what happened in the last minutes."""
    made = some_kernels(kernels)
    began = [
        line("proxy joined", 4000 - 10 * n, proxy=f"proxy-{n}", facts={"boot_id": "b"})
        for n in (1, 2, 3)
    ]
    starts = [
        line("started", 280 - 25 * n, kernel=kernel.id, proxy=kernel.owner, detail="on node-1")
        for n, kernel in enumerate(made[:6])
    ]  # fmt: skip
    return overview(
        cluster="research",
        proxy_id="proxy-1",
        time=stamp(),
        proxies=tuple(
            proxy_view(
                f"proxy-{n}",
                url=f"http://127.0.0.1:1/{n}",
                is_self=n == 1,
                tunnels=2 * n,
                owned=sum(kernel.owner == f"proxy-{n}" for kernel in made),
            )
            for n in (1, 2, 3)
        ),
        launchers=tuple(
            launcher_view(
                f"node-{n}",
                capacity=200,
                kernels=sum(kernel.launcher == f"node-{n}" for kernel in made),
                last_seen=stamp(1),
            )
            for n in (1, 2)
        ),
        kernels=tuple(made),
        timeline=tuple(began + starts),
    )


def after_failover(view: Overview, dead: str = "proxy-2", ago: float = 0.0) -> Overview:
    """``dead`` was killed: it does not answer, and proxy-1 and proxy-3 took its kernels over."""
    heirs = ("proxy-1", "proxy-3")
    moved, lines = [], []
    for n, kernel in enumerate(view.kernels):
        heir = heirs[n % 2]
        moved.append(replace(kernel, owner=heir) if kernel.owner == dead else kernel)
        if kernel.owner == dead:
            lines.append(
                line("taken over", ago, kernel=kernel.id, proxy=heir,
                     detail=f"from {dead}: refused", facts={"from": dead, "why": "refused"})
            )  # fmt: skip
    proxies = [
        replace(proxy, status="unreachable", tunnels=None, owned=0) if proxy.id == dead
        else replace(proxy, owned=sum(kernel.owner == proxy.id for kernel in moved))
        for proxy in view.proxies
    ]  # fmt: skip
    return replace(
        view,
        time=stamp(ago),
        proxies=tuple(proxies),
        kernels=tuple(moved),
        timeline=(*view.timeline, *lines),
    )


def eventful(view: Overview) -> Overview:
    """The same cluster with one of nearly everything on its timeline."""
    ids = [kernel.id for kernel in view.kernels]
    gave = {"detail": "from proxy-4: it gave the kernel up", "facts": {"from": "proxy-4"}}
    no_module = "ModuleNotFoundError: No module named 'ipykernel'"
    unread = "312 messages left the log before every client had read them"
    lines = [
        line("launcher joined", 270, launcher="node-2"),
        line("proxy draining", 250, proxy="proxy-4", detail="it gives up 2 kernels"),
        line("taken over", 249, kernel=ids[0], **gave),
        line("taken over", 249, kernel=ids[1], **gave),
        line("restarted", 200, kernel=ids[1], detail="incarnation 2"),
        line("died", 150, kernel=ids[2], proxy="proxy-3", detail="ended by SIGKILL"),
        line("start failed", 148, kernel=ids[3], proxy="proxy-3", detail=no_module),
        line("keeper replaced", 120, kernel=ids[4], proxy="proxy-2"),
        line("gap", 100, kernel=ids[4], proxy="proxy-2", detail=unread),
        line("deleted", 90, kernel=ids[2], proxy="proxy-3"),
        line("launcher restarted", 60, launcher="node-1"),
        line("leader", 50, detail="proxy-1 leads, after proxy-4"),
    ]
    return replace(view, timeline=tuple(sorted([*view.timeline, *lines], key=lambda one: one.time)))


class LiveClock(FakeAdministration):
    """An administration whose overview is always as of now, as a real one's is."""

    async def overview(self, edge: Any) -> Overview:
        view = await super().overview(edge)
        return replace(view, time=stamp())
