"""The ``Administration`` of one proxy: asks within bounds, then composes. It decides nothing.

Whatever is away, an overview is there within about a second: etcd's part comes from the cache,
the other proxies' and the keepers' parts are asked at the same time with one short deadline each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from holdfast_protocol.kernel_records import KernelRecord, KernelState
from holdfast_proxy.cluster import KeeperEndpoint, KernelModel
from holdfast_proxy.config import Mode
from holdfast_proxy.errors import ProxyError, Unavailable
from holdfast_proxy.overview import (
    DEGRADED,
    READY,
    Administration,
    EdgeState,
    KernelView,
    Overview,
    ProxyView,
)
from holdfast_proxy.ownership.history.chronicle import read_lines
from holdfast_proxy.ownership.history.narrator import Narrator
from holdfast_proxy.ownership.kernels.models import recorded_model
from holdfast_proxy.ownership.nodes.launchers import LAUNCHER_TTL
from holdfast_proxy.ownership.overview import rows
from holdfast_proxy.ownership.overview.checking import Checks
from holdfast_proxy.ownership.overview.etcd_probe import EtcdProbe
from holdfast_proxy.ownership.overview.log_fill import LogFill
from holdfast_proxy.ownership.overview.peer_states import PeerState, PeerStates
from holdfast_proxy.ownership.parts import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the configuration says of the cluster."""

    cluster: str
    mode: str


class Administrator(Administration):
    """See ``Administration``; made by ``assemble``."""

    def __init__(
        self,
        *,
        facts: Facts,
        parts: Parts,
        peers: PeerStates,
        etcd: EtcdProbe,
        checks: Checks,
        narrator: Narrator,
    ) -> None:
        self._facts = facts
        self._parts = parts
        self._peers = peers
        self._etcd = etcd
        self._checks = checks
        self._logs = LogFill(keepers=parts.keepers, clock=parts.clock)
        self.narrator = narrator

    def __repr__(self) -> str:
        return f"<Administrator of {self._facts.cluster} {self._peers!r}>"

    # --- this proxy ---

    def own_state(self, edge: EdgeState) -> dict[str, Any]:
        parts = self._parts
        me = parts.member
        row = self._own_row(edge, self._owned()[me.proxy_id])
        return {
            **row.document(),
            "time": parts.clock.stamp(),
            "era": me.era,
            "lease_age": None if me.lease_age is None else round(me.lease_age, 2),
            "launchers": parts.launchers.heard,
        }

    def _own_row(self, edge: EdgeState, owned: int) -> ProxyView:
        record, authority = self._parts.member.record, self._parts.authority
        status, role = edge.status, self._role(self._parts.member.proxy_id)
        if authority.passive is not None and self._parts.member.holds and status == DEGRADED:
            status = READY  # /readyz sends nobody here, and that is how it should be
        return ProxyView(
            id=self._parts.member.proxy_id,
            url=record.url,
            version=record.software,
            boot_id=record.boot_id,
            is_self=True,
            status=status,
            message=edge.message,
            tunnels=edge.tunnels,
            owned=owned,
            role=role,
        )

    def _role(self, proxy_id: str) -> str | None:
        if self._facts.mode == Mode.ACTIVE_ACTIVE.value:
            return None
        return "leader" if self._parts.authority.leader == proxy_id else "passive"

    async def pass_drain(self, proxy_id: str) -> None:
        await self._peers.drain(proxy_id)

    async def checks(self) -> dict[str, Any]:
        peers, etcd = await asyncio.gather(self._peers.ask(), self._etcd.look())
        return await self._checks.run(peers=peers, etcd=etcd, status=self._etcd.status)

    # --- the cluster ---

    async def overview(self, edge: EdgeState) -> Overview:
        parts = self._parts
        if not parts.view.synced:
            raise Unavailable("this proxy has not read the cluster yet")
        records = rows.listed(self._records())
        peers, etcd, _ = await asyncio.gather(
            self._peers.ask(), self._etcd.look(), self._logs.look(self._endpoints(records))
        )
        heard = rows.latest(parts.launchers.heard, *(peer.heard for peer in peers.values()))
        return Overview(
            cluster=self._facts.cluster,
            proxy_id=parts.member.proxy_id,
            mode=self._facts.mode,
            era=parts.member.era,
            time=parts.clock.stamp(),
            etcd=etcd,
            proxies=self._proxies(edge, peers),
            launchers=rows.launcher_rows(
                {name: entry.record for name, entry in parts.view.launchers.items()},
                records.values(),
                heard,
                now=datetime.fromtimestamp(parts.clock.wall(), UTC),
                trust_registered=etcd.reachable,
                ttl=LAUNCHER_TTL,
            ),
            kernels=[self._kernel(name, record) for name, record in records.items()],
            timeline=read_lines(parts.view.events, parts.timeline.pending),
        )

    def _records(self) -> dict[str, KernelRecord]:
        """Every kernel that is not deleted, whether its user still sees it or not."""
        entries = ((name, self._parts.cached(name)) for name in self._parts.view.kernels)
        return {name: entry.record for name, entry in entries if entry is not None}

    def _owned(self) -> Mapping[str, int]:
        return rows.owned_by(self._parts.view.owners, self._records())

    def _endpoints(self, records: Mapping[str, KernelRecord]) -> dict[str, KeeperEndpoint]:
        """Of the kernels that run, newest first to be asked."""
        found = {}
        for name, record in records.items():
            entry = self._parts.cached(name)
            if entry is None or record.state is not KernelState.RUNNING:
                continue
            try:
                endpoint = self._parts.endpoints.of(name, entry)
            except ProxyError:  # sealed with a key that this proxy has not
                continue
            if endpoint is not None:
                found[name] = endpoint
        return found

    def _proxies(self, edge: EdgeState, peers: Mapping[str, PeerState]) -> list[ProxyView]:
        owned, me = self._owned(), self._parts.member.proxy_id
        views = [self._own_row(edge, owned[me])]
        for name, state in peers.items():
            entry = self._parts.view.proxies.get(name)
            if entry is None:  # it went while it was asked
                continue
            views.append(
                ProxyView(
                    id=name,
                    url=entry.record.url,
                    version=state.version or entry.record.software,
                    boot_id=entry.record.boot_id,
                    is_self=False,
                    status=state.status,
                    message=state.message,
                    tunnels=state.tunnels,
                    owned=owned[name],
                    role=self._role(name),
                )
            )
        return sorted(views, key=lambda view: view.id)

    def _kernel(self, kernel_id: str, record: KernelRecord) -> KernelView:
        parts = self._parts
        owner = parts.view.owner(kernel_id)
        keeper = self._logs.state(kernel_id)
        if keeper is not None and keeper.nonce != record.nonce:
            keeper = None
        if keeper is not None and keeper.log is not None:
            self.narrator.kernel_lost(kernel_id, keeper.log.lost)
        silent = self._logs.is_silent(kernel_id) and not parts.reports.fresh(kernel_id, record)
        return rows.kernel_row(
            kernel_id,
            record,
            self._model(kernel_id, record),
            owner=None if owner is None else owner.proxy_id,
            keeper=keeper,
            silent=silent,
            launcher_known=record.launcher_id in parts.view.launchers,
        )

    def _model(self, kernel_id: str, record: KernelRecord) -> KernelModel:
        reports = self._parts.reports
        running = record.state is KernelState.RUNNING
        death = reports.death(kernel_id, record) if running else None
        return recorded_model(kernel_id, record, reports.of(kernel_id, record), death)
