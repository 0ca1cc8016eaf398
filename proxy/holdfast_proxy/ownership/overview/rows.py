"""Rows of the overview from records and evidence. Pure: everything is passed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from holdfast_protocol.kernel_records import KernelRecord, KernelState
from holdfast_protocol.records import LauncherRecord, OwnerRecord
from holdfast_proxy.cluster import KernelModel
from holdfast_proxy.overview import KernelView, LauncherView, LogView
from holdfast_proxy.ownership.cache import Entry
from holdfast_proxy.ownership.calls.keepers import KeeperState
from holdfast_proxy.ownership.nodes.placement import capacity_of

#: Dead kernels that are shown: the newest, for those who ask why.
DEAD_LISTED = 50


def listed(records: Mapping[str, KernelRecord]) -> dict[str, KernelRecord]:
    """All that are not dead, and the newest dead ones; in the order in which they changed."""
    dead = [name for name, record in records.items() if record.state is KernelState.DEAD]
    dead.sort(key=lambda name: records[name].changed)
    dropped = set(dead[: max(0, len(dead) - DEAD_LISTED)])
    names = sorted(records.keys() - dropped, key=lambda name: (records[name].changed, name))
    return {name: records[name] for name in names}


def kernel_row(
    kernel_id: str,
    record: KernelRecord,
    model: KernelModel,
    *,
    owner: str | None,
    keeper: KeeperState | None,
    silent: bool,
    launcher_known: bool,
) -> KernelView:
    """``keeper``: its own word, which is newer than ``model`` (the launcher's); ``silent``: it was
    asked and did not answer, and its launcher has not vouched for it lately."""
    state, reason = model.execution_state, model.reason
    last_activity, connections = model.last_activity, model.connections
    if record.state is KernelState.DELETING:
        state, reason = "deleting", None
    elif record.state is KernelState.STARTING:
        where = f"launcher {record.launcher_id!r}"
        waits = f"waiting for {where} to come back"
        reason = f"being started by {where}" if launcher_known else waits
    elif record.state is KernelState.RUNNING and keeper is not None and reason is None:
        state, reason = keeper.execution_state, keeper.reason
        last_activity, connections = keeper.last_activity or last_activity, keeper.connections
    elif silent and reason is None:
        state, reason = "unreachable", "neither its keeper nor its launcher answers"
    return KernelView(
        id=kernel_id,
        name=record.spec_name,
        user=record.user,
        launcher=record.launcher_id,
        owner=owner,
        state=state,
        reason=reason,
        last_activity=last_activity,
        connections=connections,
        incarnation=record.incarnation if keeper is None else keeper.incarnation,
        started=record.changed if record.state is KernelState.RUNNING else None,
        changed=record.changed,
        log=None if keeper is None else log_view(keeper),
    )


def log_view(keeper: KeeperState) -> LogView | None:
    log = keeper.log
    if log is None:
        return None
    return LogView(size=log.size, limit=log.limit, head=log.head, floor=log.floor, lost=log.lost)


def owned_by(
    owners: Mapping[str, Entry[OwnerRecord]], records: Mapping[str, KernelRecord]
) -> Counter[str]:
    """How many kernels each proxy owns."""
    return Counter(entry.record.proxy_id for name, entry in owners.items() if name in records)


def launcher_rows(
    registered: Mapping[str, LauncherRecord],
    records: Iterable[KernelRecord],
    heard: Mapping[str, str],
    *,
    now: datetime,
    trust_registered: bool,
    ttl: float,
) -> list[LauncherView]:
    """Every launcher that is registered, or that a kernel is on.

    ``trust_registered``: etcd answers, so a registration is a lease that stands; otherwise only a
    heartbeat within ``ttl`` seconds says that a launcher lives. ``heard``: ISO 8601 by launcher.
    """
    loads = Counter(
        record.launcher_id for record in records if record.state is not KernelState.DEAD
    )
    rows = []
    for name in sorted(registered.keys() | loads.keys()):
        record = registered.get(name)
        recent = _is_recent(heard.get(name), now=now, within=ttl)
        rows.append(
            LauncherView(
                id=name,
                url="" if record is None else record.url,
                engine="" if record is None else record.engine,
                labels={} if record is None else record.labels,
                capacity=None if record is None else capacity_of(record.capacity),
                kernels=loads[name],
                alive=record is not None and (trust_registered or recent),
                last_seen=heard.get(name),
            )
        )
    return rows


def latest(*sources: Mapping[str, str]) -> dict[str, str]:
    """The newest time for each name (ISO 8601 in one form sorts as time does)."""
    found: dict[str, str] = {}
    for source in sources:
        for name, stamp in source.items():
            found[name] = max(stamp, found.get(name, ""))
    return found


def _is_recent(stamp: str | None, *, now: datetime, within: float) -> bool:
    try:
        moment = datetime.fromisoformat(stamp or "")
    except ValueError:
        return False
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return now - moment <= timedelta(seconds=within)
