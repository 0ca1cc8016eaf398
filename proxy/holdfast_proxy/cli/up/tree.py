"""The tree itself: starts the children in their order, keeps `cluster.json` true, stops them.

Order of the start: etcd, then proxies and launchers together, then JupyterLab, which must find a
kernel list. Order of the stop: JupyterLab (nobody starts kernels any more), the kernels,
launchers, proxies, etcd; each step needs only what is stopped after it. It knows no terminal: a
listener is told what happens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import aiohttp

from . import descendants, kernels, leftovers
from .child import Child, ChildEvent, ChildSpec, Phase, StartFailed
from .cluster_file import ClusterFile, Member
from .plan import LAB_TOKEN, TOKEN, Plan, child_env
from .specs import Specs
from .state_dir import write_json, write_private

#: Seconds for the whole orderly stop, and for its steps.
_STOP = 9.0
_LAB_GRACE, _LAUNCHER_GRACE, _PROXY_GRACE, _ETCD_GRACE = 2.0, 1.0, 1.0, 1.0
#: What the steps after the kernels may still need.
_REST = _LAUNCHER_GRACE + _PROXY_GRACE + _ETCD_GRACE
#: Seconds until every proxy must offer kernelspecs, so that there is something to start.
_REGISTERED = 60.0
_LOOK = 0.1
_REAP = 0.5


class Tree:
    """Call ``start``, then ``stop`` or ``kill``; after either nothing of it runs."""

    def __init__(
        self,
        plan: Plan,
        *,
        specs: Specs,
        env: Mapping[str, str],
        http: aiohttp.ClientSession,
        listener: Callable[[ChildEvent], None],
    ) -> None:
        self.plan = plan
        self._state = plan.state
        self._specs = specs
        self._env = child_env(env)
        self._http = http
        self._listener = listener
        self._children: dict[str, Child] = {}
        self._members: dict[str, Member] = {}
        self._complete = False
        self._reaping: asyncio.Task[None] | None = None
        self._token = self._state.secret(TOKEN)
        self._lab_token = self._state.secret(LAB_TOKEN)
        # A process may have had children before it ran a tree (a shell that exec'ed it, a test).
        self._others = descendants.child_pids()

    def __repr__(self) -> str:
        phases = ", ".join(f"{name} {child.phase.value}" for name, child in self._children.items())
        return f"<Tree {self._state.path} {phases or 'not started'}>"

    async def start(self) -> None:
        """Bring everything up and write ``cluster.json``. Raises StartFailed."""
        for file, text in self.plan.configs().items():
            write_private(file, text)
        self._reaping = asyncio.create_task(self._reap_orphans(), name="reap orphans")
        await self._bring_up([self._specs.etcd()])
        await self._bring_up([*self._specs.proxies(), *self._specs.launchers()])
        await self._wait_registered()
        if self.plan.options.lab:
            await self._bring_up([self._specs.lab()])
        self._complete = True
        self._write_cluster_file()

    async def stop(self) -> None:
        """End everything in order, within ten seconds, and leave no process behind."""
        deadline = time.monotonic() + _STOP
        # The shim lets kernels live when its server stops, so what ends is decided here alone.
        await self._stop_children("lab", _LAB_GRACE)
        if not self.plan.options.keep_kernels:
            await self._end_kernels(deadline)
        await self._stop_children("launcher", _LAUNCHER_GRACE)
        await self._stop_children("proxy", _PROXY_GRACE)
        await self._stop_children("etcd", _ETCD_GRACE)
        self._sweep()

    async def kill(self) -> None:
        """End everything at once; keepers and kernels stay only if they were to be kept."""
        for child in self._children.values():
            child.kill()
        await asyncio.gather(*(child.stop(grace=0.0) for child in self._children.values()))
        self._sweep()

    async def _bring_up(self, specs: Sequence[ChildSpec]) -> None:
        children = [Child(spec, self._on_event) for spec in specs]
        for child in children:
            self._children[child.spec.name] = child
            child.start()
        waits = [asyncio.create_task(child.wait_ready()) for child in children]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    async def _wait_registered(self) -> None:
        """Every proxy offers kernelspecs: a launcher has registered and the proxies know it."""
        headers = {"Authorization": f"Bearer {self._token}"}
        deadline = time.monotonic() + _REGISTERED
        for url in self.plan.proxy_urls:
            while not await self._answers(f"{url}/api/kernelspecs", headers):
                if time.monotonic() > deadline:
                    name = self.plan.launcher_names[0]
                    raise StartFailed(name, f"no launcher registers with the proxy at {url}")
                await asyncio.sleep(_LOOK)

    async def _answers(self, url: str, headers: Mapping[str, str]) -> bool:
        try:
            async with self._http.get(url, headers=headers) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _end_kernels(self, deadline: float) -> None:
        if not self._of_kind("launcher"):
            return  # stopped before a launcher was started: nothing can have started a kernel
        ready = [c.url for c in self._of_kind("proxy") if c.url and c.phase is Phase.READY]
        left = deadline - _REST - time.monotonic()
        await kernels.delete_by_proxy(ready, self._token, timeout=left / 2)
        left = deadline - _REST - time.monotonic()
        await kernels.end_by_launchers(self._specs.end_kernels(), self._env, timeout=left)

    async def _stop_children(self, kind: str, grace: float) -> None:
        await asyncio.gather(*(child.stop(grace=grace) for child in self._of_kind(kind)))

    def _sweep(self) -> None:
        """What belongs to no child: orphans, and the files that name pids."""
        if self._reaping is not None:
            self._reaping.cancel()
        spare = set(self._others)
        if self.plan.options.keep_kernels:
            states = [self.plan.launcher_state(name) for name in self.plan.launcher_names]
            spare |= descendants.keeper_pids(states)
        descendants.end_descendants(spare=spare, timeout=1.0)
        for file in (self._state.cluster_file, self._state.children_file):
            file.unlink(missing_ok=True)

    def _of_kind(self, kind: str) -> list[Child]:
        return [child for child in self._children.values() if child.spec.kind == kind]

    def _on_event(self, event: ChildEvent) -> None:
        child = self._children[event.name]
        if event.phase is Phase.STARTING:
            pids = {name: child.pid for name, child in self._children.items()}
            running = {name: pid for name, pid in pids.items() if pid is not None}
            write_json(self._state.children_file, leftovers.to_json(running))
        if event.phase is Phase.READY and event.pid is not None and child.url is not None:
            self._members[event.name] = Member(event.name, event.pid, child.url)
            if self._complete:
                self._write_cluster_file()
        self._listener(event)

    def _write_cluster_file(self) -> None:
        """A child that is just being restarted keeps the entry of its last life until ready."""
        lab = self._members_of("lab")
        cluster = ClusterFile(
            token=self._token,
            etcd=self._members_of("etcd")[0],
            proxies=self._members_of("proxy"),
            launchers=self._members_of("launcher"),
            lab=lab[0] if lab else None,
            lab_token=self._lab_token,
        )
        write_json(self._state.cluster_file, cluster.to_json())

    def _members_of(self, kind: str) -> list[Member]:
        return [self._members[child.spec.name] for child in self._of_kind(kind)]

    async def _reap_orphans(self) -> None:
        reaper = descendants.OrphanReaper()
        while True:
            await asyncio.sleep(_REAP)
            supervised = {child.pid for child in self._children.values() if child.pid}
            reaper.collect(supervised | self._others)
