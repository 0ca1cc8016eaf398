"""What can go wrong between an analyst and a kernel, as data.

A fault begins, something goes on meanwhile, and it ends. Each ``begin`` returns when the failure
is there (a process gone, a websocket closed), each ``end`` when what it took away is back, not
when the notebook has noticed: that is the product's part.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from support.cluster import Cluster
from support.lab.page import LabPage
from support.lab.server import LabServer
from support.processes import wait_until


@dataclass
class Site:
    """Everything that a fault can get at, and what has to be put right again."""

    cluster: Cluster
    server: LabServer
    lab: LabPage
    frozen: list[int] = field(default_factory=list)

    async def carrier(self) -> int:
        """The proxy that carries the notebook's tunnel."""
        return await asyncio.to_thread(self.cluster.carrier, self.server.process.pid)


Step = Callable[[Site], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """``doubles``: it breaks the browser's leg, where output may come twice."""

    begin: Step
    end: Step
    doubles: bool = False


async def _kill_carrier(site: Site) -> None:
    proxy = site.cluster.proxies[await site.carrier()]
    await asyncio.to_thread(proxy.kill)


async def _end_carrier(site: Site) -> None:
    proxy = site.cluster.proxies[await site.carrier()]
    proxy.signal(signal.SIGTERM)
    await asyncio.to_thread(proxy.wait, 10)


async def _freeze_carrier(site: Site) -> None:
    carrier = await site.carrier()
    site.frozen.append(carrier)
    site.cluster.proxies[carrier].signal(signal.SIGSTOP)


async def _wake_proxies(site: Site) -> None:
    """Only after the notebook has left the frozen one: before that nothing has failed yet."""
    pid = site.server.process.pid
    await asyncio.to_thread(
        wait_until,
        lambda: site.cluster.carrier(pid) not in site.frozen,
        seconds=30,
        what="another proxy that carries the tunnel",
    )
    while site.frozen:
        site.cluster.proxies[site.frozen.pop()].signal(signal.SIGCONT)


async def _kill_proxies(site: Site) -> None:
    for proxy in site.cluster.proxies:
        await asyncio.to_thread(proxy.kill)


async def _start_proxies(site: Site) -> None:
    for number, proxy in enumerate(site.cluster.proxies):
        if not proxy.alive:
            await asyncio.to_thread(site.cluster.start_proxy, number)


@asynccontextmanager
async def _websockets_drop(site: Site) -> AsyncIterator[None]:
    """What happens inside ends the page's websockets; returns when the page knows."""
    await site.lab.wait_connected()
    count = len(site.lab.websockets)
    yield
    await site.lab.wait_dropped(count)


async def _drop_line(site: Site) -> None:
    async with _websockets_drop(site):
        await site.server.line.drop()


async def _nothing(_: Site) -> None:
    """What broke comes back by itself."""


async def _go_offline(site: Site) -> None:
    # In this order: an offline Chromium holds its open websockets still, and sees none end.
    async with _websockets_drop(site):
        await site.server.line.cut()
    await site.lab.page.context.set_offline(True)


async def _come_online(site: Site) -> None:
    await site.server.line.open()
    await site.lab.page.context.set_offline(False)


async def _kill_server(site: Site) -> None:
    async with _websockets_drop(site):
        await asyncio.to_thread(site.server.process.kill)


async def _freeze_server(site: Site) -> None:
    site.server.process.signal(signal.SIGSTOP)


async def _wake_server(site: Site) -> None:
    site.server.process.signal(signal.SIGCONT)


async def _start_server(site: Site) -> None:
    await asyncio.to_thread(site.server.start)


FAULTS = {
    "proxy-sigkill": Fault(_kill_carrier, _start_proxies),
    "proxy-sigterm": Fault(_end_carrier, _start_proxies),
    "proxy-sigstop": Fault(_freeze_carrier, _wake_proxies),
    "all-proxies-away": Fault(_kill_proxies, _start_proxies),
    "notebook-server-sigstop": Fault(_freeze_server, _wake_server),
    "connection-dropped": Fault(_drop_line, _nothing, doubles=True),
    "browser-offline": Fault(_go_offline, _come_online, doubles=True),
    "notebook-server-sigkill": Fault(_kill_server, _start_server, doubles=True),
}
