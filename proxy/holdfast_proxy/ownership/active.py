"""The ``Cluster`` on etcd: each kernel has one owner, and the mode says which proxies may own.

The face only: it finds the kernel, asks the part that knows, and turns records into what clients
see. What a client may know is decided here: another user's kernel looks like none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from holdfast_protocol.errors import RecordError
from holdfast_protocol.kernel_records import KernelRecord, KernelState
from holdfast_protocol.records import KernelReport
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
from holdfast_proxy.errors import Conflict, NotFound, ProxyError, Unavailable
from holdfast_proxy.overview import Administration
from holdfast_proxy.ownership.background import SingleFlight
from holdfast_proxy.ownership.cache import Entry
from holdfast_proxy.ownership.calls.calling import Caller
from holdfast_proxy.ownership.calls.forwarding import Forwarder
from holdfast_proxy.ownership.calls.keepers import KeeperError
from holdfast_proxy.ownership.calls.launcher_client import LauncherError
from holdfast_proxy.ownership.calls.peers import Peers
from holdfast_proxy.ownership.kernels.endings import Endings
from holdfast_proxy.ownership.kernels.lifecycle import Lifecycle
from holdfast_proxy.ownership.kernels.models import is_shown, live_model, recorded_model
from holdfast_proxy.ownership.kernels.orphans import Orphans
from holdfast_proxy.ownership.kernels.starting import Starts
from holdfast_proxy.ownership.kernels.sweep import Sweep
from holdfast_proxy.ownership.leadership.delegation import Delegation
from holdfast_proxy.ownership.member import ConfigMismatch, Standing
from holdfast_proxy.ownership.nodes.launchers import LAUNCHER_TTL
from holdfast_proxy.ownership.overview.administrator import Administrator
from holdfast_proxy.ownership.parts import Parts
from holdfast_proxy.store.contract import Store
from holdfast_proxy.store.errors import StoreError

_log = structlog.get_logger(__name__)

#: Seconds that a drain waits for the timeline.
_LAST_WORDS = 0.3
#: Seconds for giving kernels up one by one, so that of a drain's time enough is left for the lease.
_GIVING_UP = 0.25


class ActiveCluster(Cluster):
    """See ``Cluster``; made by ``build_cluster``."""

    def __init__(
        self,
        *,
        parts: Parts,
        store: Store,
        caller: Caller,
        peers: Peers,
        forwarder: Forwarder,
        administrator: Administrator,
    ) -> None:
        self.proxy_id = parts.member.proxy_id
        self.boot_id = parts.member.record.boot_id
        self._parts = parts
        self._store = store
        self._caller = caller
        self._administrator = administrator
        self._peers = peers
        self._endings = Endings(parts)
        self._starts = Starts(parts, self._endings)
        self._lifecycle = Lifecycle(parts, self._endings, forwarder)
        self._sweep = Sweep(parts, self._starts, self._endings)
        self._orphans = Orphans(parts)
        self._delegation = Delegation(parts, forwarder, caller)
        parts.launchers.on_stranger(self._met_stranger)
        self._strangers: set[str] = set()
        self._seeks = SingleFlight(parts.tasks)
        self._draining = False

    def __repr__(self) -> str:
        return f"<ActiveCluster {self.proxy_id} {self.readiness()[0].value} {self._parts.view!r}>"

    # --- this proxy ---

    @property
    def administration(self) -> Administration:
        return self._administrator

    def readiness(self) -> tuple[Readiness, str]:
        standing = self._parts.member.standing
        if self._draining or standing is Standing.LEFT:
            return Readiness.NOT_READY, "this proxy is draining"
        if standing is Standing.SUPERSEDED:
            return Readiness.NOT_READY, "another process runs with this proxy's id"
        if standing is Standing.REFUSED:
            return Readiness.NOT_READY, "the cluster runs in another mode than this proxy"
        if not self._parts.view.synced or standing is Standing.JOINING:
            return Readiness.NOT_READY, "waiting for etcd"
        passive = self._parts.authority.passive
        if passive is not None:
            return Readiness.NOT_READY, passive
        if standing is Standing.FENCED:
            return Readiness.DEGRADED, "no lease in etcd: nothing can be started or deleted"
        if self._parts.authority.leader is None and not self._parts.authority.may_own:
            return Readiness.DEGRADED, "no proxy leads the cluster: starts and deletes wait"
        return Readiness.READY, "this proxy holds its lease"

    def proxies(self) -> list[ProxyInfo]:
        known = {name: entry.record.url for name, entry in self._parts.view.proxies.items()}
        known[self.proxy_id] = self._parts.member.record.url
        return [ProxyInfo(name, known[name]) for name in sorted(known)]

    async def start(self) -> None:
        """Returns when synced and registered. Waits as long as etcd takes; raises Conflict when
        the cluster's config disagrees with ours, so that the process can end and say so."""
        parts = self._parts
        while True:
            try:
                await parts.member.step()
                break
            except ConfigMismatch as error:
                raise Conflict(str(error)) from error
            except (StoreError, RecordError) as error:
                _log.info("waiting for etcd", error=str(error))
                await asyncio.sleep(0.2)
        parts.member.begin(parts.tasks)
        loops = {
            "cluster view": parts.view.run(),
            "takeovers": parts.ownership.run(),
            "leadership": parts.authority.run(),
            "peers": self._peers.run(),
            "sweep": self._sweep.run(),
            "timeline": parts.timeline.run(),
            "narrator": self._administrator.narrator.run(),
        }
        for name, loop in loops.items():
            parts.tasks.spawn(loop, name=name)
        await parts.view.wait_synced()
        parts.kernelspecs.refresh()

    async def drain(self) -> None:
        self._draining = True
        self._administrator.narrator.draining(kernels=len(self._parts.ownership.owned()))
        with contextlib.suppress(TimeoutError):  # the lease's end gives up what is left
            async with asyncio.timeout(_GIVING_UP):
                await self._parts.ownership.release_all()
                await self._parts.authority.resign()
        # The others read why it goes before they see it go.
        await self._parts.timeline.flush(_LAST_WORDS)
        await self._parts.member.leave()

    async def close(self) -> None:
        self._draining = True
        await self._parts.tasks.close()
        await self._caller.close()
        await self._store.close()

    # --- reading kernels ---

    async def list_kernels(self, user: str | None) -> list[KernelModel]:
        parts = self._parts
        if not parts.view.synced:
            raise Unavailable("this proxy has not read the cluster's kernels yet")
        try:
            await parts.view.catch_up()
        except StoreError as error:
            _log.debug("the list is from the cache", error=str(error))
        if parts.view.unreadable_kernels:
            raise Unavailable("a kernel's record cannot be read by this version; upgrade it")
        models = []
        for kernel_id in sorted(parts.view.kernels):
            entry = parts.cached(kernel_id)
            if entry is None or (user is not None and entry.record.user != user):
                continue
            if is_shown(entry.record, age=parts.clock.age(entry.record.changed)):
                models.append(self._model(kernel_id, entry.record))
        return models

    def _model(self, kernel_id: str, record: KernelRecord) -> KernelModel:
        reports = self._parts.reports
        death = None
        if record.state is KernelState.RUNNING:
            death = reports.death(kernel_id, record)
        model = recorded_model(kernel_id, record, reports.of(kernel_id, record), death)
        if record.state is KernelState.STARTING:
            # so that a front end can say what the kernel waits for
            return replace(model, reason=self._why_waiting(record))
        return model

    async def get_kernel(self, kernel_id: str, user: str | None) -> KernelModel:
        parts = self._parts
        entry = await parts.known(kernel_id, user)
        record = entry.record
        model = self._model(kernel_id, record)
        if not is_shown(record, age=parts.clock.age(record.changed)):
            raise NotFound(f"Kernel does not exist: {kernel_id}")
        endpoint = parts.endpoints.of(kernel_id, entry)
        if record.state is not KernelState.RUNNING or model.reason is not None or endpoint is None:
            return model
        try:
            return live_model(kernel_id, record, await parts.keepers.state(endpoint))
        except KeeperError as error:
            # The launcher's word that it lives is as good as the keeper's, only older.
            if parts.reports.of(kernel_id, record) and parts.reports.fresh(kernel_id, record):
                return model
            self._seek(kernel_id, entry)
            raise Unavailable(f"the kernel cannot be reached now: {error}") from error

    async def locate(self, kernel_id: str, user: str | None) -> KeeperEndpoint | Waiting | Dead:
        parts = self._parts
        entry = await parts.known(kernel_id, user)
        record = entry.record
        match record.state:
            case KernelState.DEAD:
                return Dead(record.reason or "the kernel died")
            case KernelState.DELETING:
                return Dead("the kernel was deleted")
            case KernelState.STARTING:
                return self._waiting(kernel_id, record)
            case KernelState.RUNNING:
                death = parts.reports.death(kernel_id, record)
                if death is not None:
                    return Dead(death)
        endpoint = parts.endpoints.of(kernel_id, entry)
        return endpoint or Waiting("the kernel's keeper is not known yet")

    def _waiting(self, kernel_id: str, record: KernelRecord) -> Waiting:
        """Says what it waits for; a start that its owner left is taken up at once."""
        self._parts.ownership.wanted(kernel_id)
        return Waiting(self._why_waiting(record))

    def _why_waiting(self, record: KernelRecord) -> str:
        if record.launcher_id not in self._parts.view.launchers:
            return f"waiting for launcher {record.launcher_id!r} to come back"
        return f"the kernel is being started by launcher {record.launcher_id!r}"

    async def kernel_output(self, kernel_id: str, user: str | None, lines: int) -> KernelOutput:
        parts = self._parts
        record = (await parts.known(kernel_id, user)).record
        try:
            target = parts.launchers.target(record.launcher_id)
            output = await parts.launcher_client.output(target, kernel_id, lines=lines)
        except LauncherError as error:
            raise Unavailable(f"its launcher does not tell: {error}", retry_after=2.0) from error
        model = self._model(kernel_id, record)
        return KernelOutput(
            state=model.execution_state,
            reason=model.reason,
            launcher=record.launcher_id,
            output=output,
        )

    async def wait_changed(self, kernel_id: str, timeout: float) -> None:
        await self._parts.view.wait_changed(kernel_id, timeout)

    async def report_unreachable(self, endpoint: KeeperEndpoint, error: str) -> None:
        entry = self._parts.cached(endpoint.kernel_id)
        if entry is None or entry.record.state is not KernelState.RUNNING:
            return
        if self._parts.endpoints.of(endpoint.kernel_id, entry) != endpoint:
            return  # another keeper has taken over meanwhile
        _log.info("keeper unreachable", kernel=endpoint.kernel_id, error=error)
        token = self._parts.ownership.token(endpoint.kernel_id)
        try:
            await self._seeks.run(
                endpoint.kernel_id,
                lambda: self._endings.seek(endpoint.kernel_id, entry, token),
            )
        except ProxyError as failure:
            _log.info("no evidence", kernel=endpoint.kernel_id, error=failure.message)

    def _seek(self, kernel_id: str, entry: Entry[KernelRecord]) -> None:
        token = self._parts.ownership.token(kernel_id)
        self._seeks.begin(kernel_id, lambda: self._endings.seek(kernel_id, entry, token))

    # --- acting on kernels ---

    async def start_kernel(self, request: StartRequest) -> KernelModel:
        if not self._parts.authority.may_own:
            model = await self._delegation.start(request)
            if model is not None:
                return model
        entry = await self._starts.start(request)
        return self._model(request.kernel_id, entry.record)

    async def interrupt_kernel(self, kernel_id: str, user: str | None, call: LifecycleCall) -> None:
        await self._lifecycle.interrupt(kernel_id, user, call)

    async def restart_kernel(
        self, kernel_id: str, user: str | None, call: LifecycleCall
    ) -> KernelModel:
        return await self._lifecycle.restart(kernel_id, user, call)

    async def delete_kernel(self, kernel_id: str, user: str | None, call: LifecycleCall) -> None:
        await self._lifecycle.delete(kernel_id, user, call)

    # --- launchers ---

    def _met_stranger(self, launcher_id: str, _kernel_id: str, _report: KernelReport) -> None:
        if not self._parts.authority.may_own:
            self._strangers.add(launcher_id)

    def kernelspecs(self) -> Mapping[str, Any]:
        return self._parts.kernelspecs.merged()

    async def kernelspec_resource(self, name: str, path: str) -> tuple[bytes, str]:
        return await self._parts.kernelspecs.resource(name, path)

    async def heartbeat(
        self, launcher_id: str, credential: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        joined = await self._parts.launchers.heartbeat(launcher_id, credential, body)
        if launcher_id in self._strangers and joined is None:
            self._delegation.repeat(launcher_id, credential, body)
        self._strangers.discard(launcher_id)
        answer: dict[str, Any] = {
            "proxies": [{"id": proxy.id, "url": proxy.url} for proxy in self.proxies()],
            "ttl": LAUNCHER_TTL,
        }
        if joined is not None:
            answer["credential"] = joined
        return answer
