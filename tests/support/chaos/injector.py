"""Makes each fault of the schedule happen, and end.

A fault ends when what it took away was given back; whether everything recovers is for the checker
to see. Everything is signalled by process id.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import psutil

from support.chaos.history import Healed, Injected, Recorder
from support.chaos.line import FAIR, Way, Weather
from support.chaos.schedule import Fault, Kind
from support.chaos.site import MEMBERS, PROXIES, Site
from support.processes import ManagedProcess

_SLOW_LINE = 40_000.0
_SLOW_NODE = "400kbit"
_END_SECONDS = 20.0

#: Answers kernel → sessions whose stream goes through proxy ``n`` now.
Carried = Callable[[int], Awaitable[tuple[str, ...]]]


class Injector:
    """``run`` follows a schedule. ``kernels``: the ids in use, for faults that hit a keeper."""

    def __init__(
        self, site: Site, recorder: Recorder, *, carried: Carried, kernels: Callable[[], list[str]]
    ) -> None:
        self._site = site
        self._recorder = recorder
        self._carried = carried
        self._kernels = kernels
        self._running: set[asyncio.Task[None]] = set()
        self._keepers: dict[int, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        #: Faults that could not be made, and why.
        self.failed: list[str] = []

    def __repr__(self) -> str:
        return f"<Injector with {len(self._running)} faults under way>"

    async def run(self, faults: list[Fault]) -> None:
        """Until the last one is over."""
        began = time.monotonic()
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
            task = asyncio.create_task(self._one(fault))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        while self._running:
            await asyncio.wait(set(self._running))

    async def _one(self, fault: Fault) -> None:
        carried: tuple[str, ...] = ()
        kernel = ""
        if fault.kind.value.startswith(("proxy", "line", "hole")):
            carried = await self._carried(fault.target)
        if fault.kind in (Kind.KEEPER_KILL, Kind.KEEPER_STOP):
            kernel = self._kernel_of(fault.target)
            if not kernel:
                return
        self._recorder.write(
            Injected(
                at=self._recorder.now(),
                fault=fault.number,
                kind=fault.kind.value,
                target=fault.target,
                carried=carried,
                kernel=kernel,
            )
        )
        try:
            await self._apply(fault, kernel)
        except Exception as error:  # said in the report: a run without its faults proves nothing
            self.failed.append(f"{fault}: {error!r}")
        self._recorder.write(Healed(at=self._recorder.now(), fault=fault.number))

    async def _apply(self, fault: Fault, kernel: str) -> None:
        family = fault.kind.value.split("-")[0]
        if fault.kind in (Kind.KEEPER_KILL, Kind.KEEPER_STOP):
            await self._keeper(fault, kernel)
        elif family == "proxy":
            await self._proxy(fault)
        elif family == "launcher":
            await self._launcher(fault)
        elif family == "etcd":
            await self._etcd(fault)
        elif family == "line":
            await self._line(fault)
        elif family == "store":
            await self._store(fault)
        elif family == "hole":
            await self._hole(fault)
        elif family == "node":
            await self._node(fault)
        elif family == "disk":
            await self._disk(fault)

    # -- processes ----------------------------------------------------------------------------

    async def _proxy(self, fault: Fault) -> None:
        proxies = self._site.proxies
        if fault.kind is Kind.PROXY_ROLL:
            for n in range(PROXIES):
                async with self._lock(proxies[n]):
                    await self._end(proxies[n])
                    proxies[n].start()
                    await self._ready(n)
        elif fault.kind is Kind.PROXY_ALL_KILL:
            async with AsyncExitStack() as locks:
                for proxy in proxies:
                    await locks.enter_async_context(self._lock(proxy))
                    proxy.kill()
                await asyncio.sleep(fault.seconds)
                for proxy in proxies:
                    proxy.start()
        else:
            await self._process(fault, proxies[fault.target])

    async def _launcher(self, fault: Fault) -> None:
        launchers = self._site.launchers
        if fault.kind is not Kind.LAUNCHER_ROLL:
            await self._process(fault, launchers[fault.target])
            return
        for launcher in launchers:
            async with self._lock(launcher):
                await self._end(launcher)
                launcher.start()
            await asyncio.sleep(fault.seconds / len(launchers))

    async def _process(self, fault: Fault, process: ManagedProcess) -> None:
        """Kill, end or freeze it, and have it again after a while."""
        action = fault.kind.value.rsplit("-", 1)[1]
        async with self._lock(process):
            if action == "stop":
                process.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                process.signal(signal.SIGCONT)
                return
            if action == "kill":
                process.kill()
            else:
                await self._end(process)
            await asyncio.sleep(fault.seconds)
            process.start()

    def _lock(self, process: ManagedProcess) -> asyncio.Lock:
        """One fault at a time has a process; a rolling restart may take longer than planned."""
        return self._locks.setdefault(process.name, asyncio.Lock())

    async def _end(self, process: ManagedProcess) -> None:
        """SIGTERM, and its end. Raises TimeoutError when it takes too long."""
        process.signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, _END_SECONDS)

    async def _ready(self, n: int) -> None:
        await asyncio.to_thread(self._site.wait_proxy, n)

    async def _keeper(self, fault: Fault, kernel: str) -> None:
        pid = self._keeper_pid(kernel)
        if pid is None or not psutil.pid_exists(pid):
            return  # it was killed, and the next one is not up yet
        process = psutil.Process(pid)
        if fault.kind is Kind.KEEPER_KILL:
            process.send_signal(signal.SIGKILL)
            return
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)

    def _kernel_of(self, target: int) -> str:
        """The kernel that this number means; the same one as long as it lives."""
        kernels = self._kernels()
        known = self._keepers.get(target)
        if known in kernels:
            return str(known)
        free = [kernel for kernel in kernels if kernel not in self._keepers.values()]
        if not free:
            return ""
        self._keepers[target] = free[0]
        return free[0]

    def _keeper_pid(self, kernel: str) -> int | None:
        for config in self._site.launcher_configs:
            path = config.with_suffix("") / "kernels" / kernel / "keeper.json"
            with suppress(OSError, ValueError):
                return int(json.loads(path.read_text())["pid"])
        return None

    # -- etcd ---------------------------------------------------------------------------------

    async def _etcd(self, fault: Fault) -> None:
        members = self._site.etcds
        target = fault.target
        if fault.kind is Kind.ETCD_LEADER_KILL:
            target = await asyncio.to_thread(self._site.etcd_leader)
        if fault.kind is Kind.ETCD_QUORUM_STOP:
            frozen = [members[(target + n) % MEMBERS] for n in range(2)]
            for member in frozen:
                member.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            for member in frozen:
                member.signal(signal.SIGCONT)
            return
        await self._process(fault, members[target])

    # -- lines, packets, disks ----------------------------------------------------------------

    async def _line(self, fault: Fault) -> None:
        line = self._site.lines[fault.target]
        if fault.kind is Kind.LINE_RESET:
            line.reset()
            return
        if fault.kind is Kind.LINE_CUT:
            line.cut_next(Way.UP if fault.number % 2 else Way.DOWN)
            return
        line.weather = {
            Kind.LINE_DELAY: Weather(delay=0.15),
            Kind.LINE_SLOW: Weather(rate=_SLOW_LINE),
            Kind.LINE_DEAF: Weather(held=frozenset({Way.UP})),
            Kind.LINE_MUTE: Weather(held=frozenset({Way.DOWN})),
        }[fault.kind]
        await asyncio.sleep(fault.seconds)
        line.weather = FAIR

    async def _store(self, fault: Fault) -> None:
        lines = self._site.store_lines[fault.target]
        if fault.kind is Kind.STORE_RESET:
            for line in lines:
                line.reset()
            return
        held = frozenset({Way.DOWN if fault.number % 2 else Way.UP})
        weather = Weather(delay=0.3) if fault.kind is Kind.STORE_DELAY else Weather(held=held)
        for line in lines:
            line.weather = weather
        await asyncio.sleep(fault.seconds)
        for line in lines:
            line.weather = FAIR

    async def _hole(self, fault: Fault) -> None:
        network, line = self._site.network, self._site.lines[fault.target]
        both = fault.kind is Kind.HOLE_BOTH
        up = both or fault.number % 2 == 0
        await network.drop_port(fault.number, line.port, to_server=up, to_client=both or not up)
        await asyncio.sleep(fault.seconds)
        await network.heal(fault.number)

    async def _node(self, fault: Fault) -> None:
        network = self._site.network
        if fault.kind is Kind.NODE_SLOW:
            await network.slow_node(_SLOW_NODE)
            await asyncio.sleep(fault.seconds)
            await network.hurry_node()
            return
        if fault.kind is Kind.NODE_RESET:
            await network.reset_node(fault.number)
        else:
            both = fault.kind is Kind.NODE_CUT
            there = both or fault.target == 0
            await network.cut_node(fault.number, to_node=there, from_node=both or not there)
        await asyncio.sleep(fault.seconds)
        await network.heal(fault.number)

    async def _disk(self, fault: Fault) -> None:
        hog: Path = await asyncio.to_thread(self._site.disk.fill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(hog.unlink)
