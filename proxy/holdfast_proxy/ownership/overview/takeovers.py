"""Why this proxy took a kernel over, and how long that took: watched from outside.

It listens to what ownership itself acts on, so that nothing there has to know that it is measured:
owner keys that vanish, evidence against a peer, claims that were won, tokens that were
acknowledged. What it calls the beginning is the first evidence that *this* proxy had. Before it
lies what no survivor can measure: for an owner that fell silent, up to its lease's time to live.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import Tombstone
from holdfast_protocol.keys import Kind
from holdfast_protocol.ownership import Verdict
from holdfast_proxy.metrics.figures import ProxyMetrics
from holdfast_proxy.ownership.cache import Change, ClusterView

#: Evidence against a peer, as a label.
_EVIDENCE = {Verdict.REFUSED: "refused", Verdict.REPLACED: "replaced"}
#: Evidence that is older when the owner's key goes was about something else.
_SAME_LOSS_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Loss:
    """An owner that was lost at ``began``. ``revision``: at which its key went; 0: it stands, and
    the ``evidence`` against its holder is a label."""

    owner: str
    began: float
    revision: int = 0
    evidence: str | None = None


class TakeoverWatch:
    """``clock``: seconds. The listeners are public methods; ``wire`` attaches them."""

    def __init__(
        self, *, me: str, view: ClusterView, metrics: ProxyMetrics, clock: Callable[[], float]
    ) -> None:
        self._me = me
        self._view = view
        self._metrics = metrics
        self._clock = clock
        self._losses: dict[str, Loss] = {}
        self._left: dict[str, int] = {}
        self._pending: dict[str, tuple[str, float]] = {}

    def __repr__(self) -> str:
        return f"<TakeoverWatch of {len(self._losses)} losses, {len(self._pending)} pending>"

    def changed(self, change: Change) -> None:
        """The view has a change."""
        if change.kind is Kind.PROXY:
            if change.after is None:
                self._left[change.name] = change.revision
            else:
                self._left.pop(change.name, None)
        elif change.kind is Kind.KERNEL and _is_over(change.after):
            self._losses.pop(change.name, None)
            self._pending.pop(change.name, None)
        elif change.kind is Kind.OWNER:
            self._owner_changed(change)

    def _owner_changed(self, change: Change) -> None:
        name = change.name
        if change.after is not None:
            if change.after.record.proxy_id != self._me:
                self._losses.pop(name, None)
                self._pending.pop(name, None)
            elif name not in self._losses and change.before is not None:
                self._losses[name] = Loss(change.before.record.proxy_id, self._clock())
            return
        if change.before is None or _is_over(self._view.kernel(name)):
            return
        owner, now = change.before.record.proxy_id, self._clock()
        known = self._losses.get(name)
        if known is None or known.owner != owner or now - known.began > _SAME_LOSS_SECONDS:
            known = Loss(owner, now)
        self._losses[name] = replace(known, revision=change.revision)

    def suspected(self, proxy_id: str, verdict: Verdict) -> None:
        """There is evidence against a peer."""
        now, evidence = self._clock(), _EVIDENCE.get(verdict)
        for kernel_id, entry in self._view.owners.items():
            if entry.record.proxy_id == proxy_id:
                self._losses[kernel_id] = Loss(proxy_id, now, evidence=evidence)

    def claimed(self, kernel_id: str, _token: Token, created: bool) -> None:
        """We own the kernel."""
        loss = self._losses.pop(kernel_id, None)
        if created:
            return
        reason = self._reason(loss)
        self._metrics.takeovers.labels(reason).inc()
        if loss is not None and reason not in ("reclaimed", "unowned"):
            self._pending[kernel_id] = (reason, loss.began)

    def _reason(self, loss: Loss | None) -> str:
        if loss is None:
            return "unowned"
        if loss.owner == self._me:
            return "reclaimed"
        if loss.evidence is not None:
            return loss.evidence
        # A lease's end takes all its keys in one revision; a drain gives them up before.
        went_with_lease = not loss.revision or self._left.get(loss.owner) == loss.revision
        return "lease_gone" if went_with_lease else "released"

    def effective(self, kernel_id: str) -> None:
        """Keeper and launcher have acknowledged our token."""
        pending = self._pending.pop(kernel_id, None)
        if pending is not None:
            reason, began = pending
            self._metrics.takeover_duration.labels(reason).observe(self._clock() - began)


def _is_over(entry: Any) -> bool:
    return entry is None or isinstance(entry.record, Tombstone)
