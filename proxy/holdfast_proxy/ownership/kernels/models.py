"""What clients see of a kernel, made from its record and the freshest evidence. Pure.

Promise 7: a dead kernel is shown as ``dead`` with its reason for a minute, then it is a 404; its
record stays a day for those who ask why. A kernel that never ran (its start failed) is shown to
nobody but the one who started it.
"""

from __future__ import annotations

import re

from holdfast_protocol.kernel_records import KernelRecord, KernelState
from holdfast_protocol.records import KernelReport
from holdfast_proxy.cluster import KernelModel
from holdfast_proxy.ownership.calls.keepers import KeeperState

#: Seconds for which a dead kernel is still shown.
DEAD_SHOWN = 60.0

#: What jupyter_server's gateway client parses; anything else makes it fail the whole list.
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z")
_STATES = frozenset({"starting", "idle", "busy", "restarting", "dead"})


def recorded_model(
    kernel_id: str, record: KernelRecord, report: KernelReport | None, death: str | None
) -> KernelModel:
    """From the record and the launcher's last report on this start of the kernel. ``death``: why
    it is dead by evidence that the record may not have yet."""
    state = "starting" if record.state is KernelState.STARTING else "unknown"
    stamp, connections = record.changed, 0
    if report is not None and record.state is KernelState.RUNNING:
        state = report.execution_state if report.execution_state in _STATES else state
        stamp = report.last_activity or stamp
        connections = report.connections
    reason = record.reason if record.state is KernelState.DEAD else death
    return KernelModel(
        id=kernel_id,
        name=record.spec_name,
        last_activity=_stamp(stamp, record.changed),
        execution_state="dead" if reason is not None else state or "unknown",
        connections=connections,
        reason=reason,
    )


def live_model(kernel_id: str, record: KernelRecord, state: KeeperState) -> KernelModel:
    """From what the keeper has just said."""
    return KernelModel(
        id=kernel_id,
        name=record.spec_name,
        last_activity=_stamp(state.last_activity, record.changed),
        execution_state=state.execution_state,
        connections=state.connections,
        reason=state.reason,
    )


def is_shown(record: KernelRecord, *, age: float) -> bool:
    """``age``: seconds since the record's state changed."""
    match record.state:
        case KernelState.DELETING:
            return False
        case KernelState.DEAD:
            return record.incarnation > 0 and age < DEAD_SHOWN
        case _:
            return True


def _stamp(stamp: str | None, fallback: str) -> str:
    return stamp if stamp is not None and _STAMP.fullmatch(stamp) else fallback
