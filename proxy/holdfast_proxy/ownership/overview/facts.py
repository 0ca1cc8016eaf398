"""What a proxy's ``/metrics`` says of the cluster, gathered from the parts at a scrape. No I/O."""

from __future__ import annotations

from collections import Counter

from holdfast_protocol.kernel_records import KernelState, Tombstone
from holdfast_proxy.metrics.facts import ClusterFacts
from holdfast_proxy.metrics.measured_store import MeasuredStore
from holdfast_proxy.ownership.calls.calling import Caller
from holdfast_proxy.ownership.parts import Parts


def cluster_facts(parts: Parts, *, caller: Caller, store: MeasuredStore) -> ClusterFacts:
    """As of now."""
    view, member, ownership = parts.view, parts.member, parts.ownership
    records = [entry.record for entry in view.kernels.values()]
    states = Counter(r.state.value for r in records if not isinstance(r, Tombstone))
    owned = ownership.owned()
    leader = parts.authority.leader
    one_leads = leader is not None or not parts.authority.may_own
    return ClusterFacts(
        kernels={state.value: states[state.value] for state in KernelState},
        unreadable=len(view.unreadable_kernels),
        owned=len(owned),
        effective=sum(ownership.effective(kernel_id) for kernel_id in owned),
        lease_age=member.lease_age,
        fenced_in=member.fenced_in,
        leads=parts.authority.may_own if one_leads else None,
        proxies=len(view.proxies),
        launchers=len(view.launchers),
        stale_tokens=caller.stale_tokens,
        unseen_seconds=store.unseen_seconds,
    )
