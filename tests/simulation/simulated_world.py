"""Proxies, nodes, a store and clients on one simulated loop: what the ownership stories play in.

The proxies are the product's own (``ownership.assembly``), each with a process, a clock and a
client of the store; only their sockets are replaced. It must not judge: see ``ownership_judge``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from holdfast_protocol.keys import Keys
from holdfast_proxy.cluster import LifecycleCall, StartRequest
from holdfast_proxy.config import Mode, ProxyConfig, Secret
from holdfast_proxy.edge.errors_middleware import error_response
from holdfast_proxy.errors import ProxyError
from holdfast_proxy.ownership.active import ActiveCluster
from holdfast_proxy.ownership.assembly import assemble
from holdfast_proxy.ownership.calls.calling import Answer, CallError, Target
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.store.memory import MemoryServer
from simulation.simulated_loop import Process, SimulatedLoop
from simulation.simulated_network import Network, Server, SimulatedStore
from simulation.simulated_node import Effect, SimulatedKeeper, SimulatedLauncher, heartbeats

USER = "ada"
CLUSTER = "simulated"
#: Seconds of wall time at the loop's zero.
_EPOCH = 1_750_000_000.0
#: Seconds that a client waits for an answer.
PATIENCE = 60.0


@dataclass
class Asked:
    """One call of a client. ``answer`` None: it had none (yet); ``done``: no more will come."""

    what: str
    kernel_id: str
    proxy: str
    request_id: str | None
    at: float
    answer: Answer | None = None
    done: bool = False

    @property
    def ok(self) -> bool:
        return self.answer is not None and self.answer.ok

    def __repr__(self) -> str:
        said = "…" if not self.done else "no reply" if self.answer is None else self.answer.status
        return f"<{self.what} {self.kernel_id[:8]} at {self.proxy}, {self.at:.1f} s: {said}>"


class ProxyServer(Server):
    """One proxy process, with as much of an edge as ownership needs."""

    def __init__(self, world: World, name: str, port: int, drift: float) -> None:
        super().__init__(name, name, Process(name, world.loop))
        self.url = f"http://127.0.0.1:{port}"
        self._drift = drift
        self._offset = 1000.0 * port
        loop = world.loop
        clock = Clock(now=self.now, wall=lambda: _EPOCH + loop.time())
        self.store = SimulatedStore(world.etcd, world.network, name)
        config = ProxyConfig(
            proxy_id=name,
            cluster=CLUSTER,
            user=USER,
            cluster_key=Secret("cluster-key"),
            join_token=Secret("join-token"),
            node_grace=world.node_grace,
            mode=world.mode,
        ).bound(port)
        self.cluster: ActiveCluster = assemble(
            config, proxy_url=self.url, store=self.store, clock=clock
        )
        self.cluster._caller.call = world.network.caller(name)  # type: ignore[method-assign]
        self.config = config

    def now(self) -> float:
        """This machine's CLOCK_BOOTTIME, which runs a little fast or slow."""
        return self._offset + self.process.loop.time() * (1 + self._drift)

    @property
    def parts(self) -> Any:
        return self.cluster._parts

    async def handle(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> Answer:
        try:
            return await self._handle(method, path, headers, body or {})
        except ProxyError as error:
            response = error_response(error)
            return Answer(response.status, response.headers, cast("bytes", response.body))

    async def _handle(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> Answer:
        match method, path.strip("/").split("/"):
            case "GET", ["holdfast", "v1", "whoami"]:
                return _json({"boot_id": self.cluster.boot_id})
            case "POST", ["holdfast", "v1", "launchers", name]:
                bearer = headers["Authorization"].removeprefix("Bearer ")
                return _json(await self.cluster.heartbeat(name, bearer, body))
            case "POST", ["api", "kernels"]:
                request = StartRequest(
                    kernel_id=body["env"]["KERNEL_ID"],
                    user=USER,
                    spec_name="python3",
                    request_id=headers.get("Holdfast-Request"),
                    forwarded_by=headers.get("Holdfast-Forwarded"),
                )
                return _json({"id": (await self.cluster.start_kernel(request)).id})
            case "POST", ["api", "kernels", kernel_id, "restart"]:
                model = await self.cluster.restart_kernel(kernel_id, USER, self._call(headers))
                return _json({"id": model.id, "execution_state": model.execution_state})
            case "DELETE", ["api", "kernels", kernel_id]:
                await self.cluster.delete_kernel(kernel_id, USER, self._call(headers))
                return _json({})
        raise AssertionError(f"nobody asks this: {method} {path}")

    def _call(self, headers: Mapping[str, str]) -> LifecycleCall:
        ago = self.process.loop.time() - float(headers["Arrived"])
        max_age = float(headers.get("Holdfast-Max-Age", self.config.default_max_age))
        return LifecycleCall(
            request_id=headers.get("Holdfast-Request"),
            deadline=self.now() - ago * (1 + self._drift) + max_age,
            forwarded_by=headers.get("Holdfast-Forwarded"),
        )


class World:
    """Everything. Use it as a context manager; its methods run simulated time themselves."""

    def __init__(
        self,
        *,
        proxies: int = 2,
        nodes: int = 1,
        mode: Mode = Mode.ACTIVE_ACTIVE,
        node_grace: float = 600.0,
        seed: int = 0,
    ) -> None:
        self.loop = SimulatedLoop()
        self.network = Network(self.loop)
        self.etcd = MemoryServer(clock=self.loop.time)
        self.mode, self.node_grace = mode, node_grace
        self.keys = Keys(CLUSTER)
        self.effects: list[Effect] = []
        self.asked: list[Asked] = []
        self.nodes: dict[str, SimulatedLauncher] = {}
        self.proxies: dict[str, ProxyServer] = {}
        self.processes: list[Process] = []
        self.kernel_ids: list[str] = []
        self._numbers = itertools.count(1)
        self._random = random.getstate()
        random.seed(seed)
        for number in range(1, proxies + 1):
            self.boot("abcdef"[number - 1])
        for number in range(1, nodes + 1):
            self._add_node(f"node-{number}")
        self.run_until(self._all_ready, within=20.0)

    def __repr__(self) -> str:
        return f"<World at {self.loop.time():.3f} s: {list(self.proxies)} {list(self.nodes)}>"

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            self.loop.run_until_complete(process.end())
        self.loop.close()
        random.setstate(self._random)

    # --- time ---

    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def run_until(self, condition: Any, *, within: float, step: float = 0.1) -> bool:
        """Whether ``condition()`` came true within so many simulated seconds."""
        end = self.loop.time() + within
        while not (true := condition()) and self.loop.time() < end:
            self.run(step)
        return bool(true)

    # --- proxies ---

    def boot(self, name: str) -> ProxyServer:
        """A new process of proxy ``name``; a former one must be dead."""
        number = ord(name) - ord("a")
        proxy = ProxyServer(self, name, 8001 + number, (0.004, -0.004, 0.0)[number % 3])
        self.processes.append(proxy.process)
        self.proxies[name] = proxy
        self.network.listen(proxy.url, proxy)
        proxy.process.spawn(proxy.cluster.start())
        return proxy

    def kill(self, name: str) -> None:
        """SIGKILL. Idempotent."""
        proxy = self.proxies[name]
        proxy.process.kill()
        self.network.close(proxy.url)

    def revive(self, name: str) -> None:
        """Start it again if it is dead."""
        if not self.proxies[name].process.alive:
            self.boot(name)

    def alive(self) -> list[str]:
        return [name for name, proxy in self.proxies.items() if proxy.process.alive]

    def _all_ready(self) -> bool:
        wanted = set(self.nodes)
        return all(
            proxy.parts.member.holds
            and proxy.parts.view.synced
            and all("python3" in proxy.parts.kernelspecs.names(name) for name in wanted)
            for proxy in self.proxies.values()
        )

    # --- nodes ---

    def _add_node(self, name: str) -> None:
        process = Process(name, self.loop)
        self.processes.append(process)
        launcher = SimulatedLauncher(name, self.network, process, self.effects.append)
        self.nodes[name] = launcher
        self.loop.run_until_complete(launcher.open())
        process.spawn(heartbeats(launcher, lambda: [p.url for p in self.proxies.values()]))

    def launcher_down(self, name: str) -> None:
        """Its keepers go on."""
        self.network.close(self.nodes[name].url)

    def launcher_up(self, name: str) -> None:
        """Idempotent."""
        self.nodes[name].listen()

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        """What ``one`` sends to ``other`` does not arrive any more (and the other way)."""
        self.network.cut.add((one, other))
        if both:
            self.network.cut.add((other, one))
        self._reconnect()

    def join(self, one: str, other: str) -> None:
        """The end of ``cut``."""
        self.network.cut -= {(one, other), (other, one)}
        self._reconnect()

    def heal(self) -> None:
        """All faults stop. Who is dead comes back."""
        self.network.cut.clear()
        self._reconnect()
        self.network.decide = lambda _call: None
        for name in self.nodes:
            self.launcher_up(name)
        for name, proxy in list(self.proxies.items()):
            proxy.process.thaw()
            self.revive(name)

    def _reconnect(self) -> None:
        for proxy in self.proxies.values():
            proxy.store.reconnect()

    def keepers(self, kernel_id: str) -> list[tuple[str, SimulatedKeeper]]:
        """(node, keeper) wherever there is one for this kernel."""
        return [
            (name, cast("SimulatedKeeper", launcher.keepers[kernel_id]))
            for name, launcher in self.nodes.items()
            if kernel_id in launcher.keepers
        ]

    # --- clients ---

    def new_id(self) -> str:
        """A kernel id, the same in each run."""
        kernel_id = f"00000000-0000-4000-8000-{next(self._numbers):012d}"
        self.kernel_ids.append(kernel_id)
        return kernel_id

    def ask(
        self,
        what: str,
        kernel_id: str,
        proxy: str,
        *,
        request_id: str | None = None,
        operation: str | None = None,
    ) -> Asked:
        """A client's call: "start", "restart" or "delete". Its answer comes as time runs."""
        asked = Asked(what, kernel_id, proxy, request_id, self.loop.time())
        self.asked.append(asked)
        outside = Process("client", self.loop)
        self.processes.append(outside)
        outside.spawn(self._ask(asked), operation=operation)
        return asked

    async def _ask(self, asked: Asked) -> None:
        headers = [] if asked.request_id is None else [("Holdfast-Request", asked.request_id)]
        path, body = f"/api/kernels/{asked.kernel_id}", None
        method = "DELETE" if asked.what == "delete" else "POST"
        if asked.what == "start":
            path, body = "/api/kernels", {"env": {"KERNEL_ID": asked.kernel_id}}
        elif asked.what == "restart":
            path += "/restart"
        call = self.network.caller("client")
        target = Target(url=self.proxies[asked.proxy].url)
        try:
            asked.answer = await call(
                method, target, path, timeout=PATIENCE, headers=headers, body=body
            )
        except CallError:
            pass
        finally:
            asked.done = True


def _json(document: Mapping[str, Any]) -> Answer:
    return Answer(200, {}, json.dumps(document).encode())
