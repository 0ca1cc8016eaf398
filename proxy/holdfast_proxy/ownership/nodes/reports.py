"""What is known of kernels from their launchers' mouths: states, activity, evidence of death.

Heartbeats that this proxy received itself come first, then those that others wrote to
``activity/``. Only for kernels that are assigned to the launcher that speaks, and only for the
start (nonce) that the record names: a launcher cannot declare another one's kernel dead, nor an
old report a new one. Must not know HTTP or the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from holdfast_protocol.kernel_records import KernelRecord
from holdfast_protocol.keys import Kind
from holdfast_protocol.records import ActivityRecord, KernelReport
from holdfast_proxy.ownership.cache import Change, ClusterView
from holdfast_proxy.ownership.clock import Clock

#: Seconds for which "alive" from a heartbeat is evidence: three heartbeats.
FRESH = 6.0


@dataclass(frozen=True, slots=True)
class _Heard:
    report: KernelReport
    at: float


class Reports:
    """The last report of each kernel, by launcher."""

    def __init__(self, *, view: ClusterView, clock: Clock) -> None:
        self._view = view
        self._clock = clock
        self._heard: dict[str, dict[str, _Heard]] = {}
        self._listeners: list[Callable[[str, KernelReport], None]] = []
        view.listen(self._changed)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {len(items)}" for name, items in self._heard.items())
        return f"<Reports {counts or 'none'}>"

    def on_report(self, listener: Callable[[str, KernelReport], None]) -> None:
        """``listener(kernel_id, report)`` for each report that differs from the last one."""
        self._listeners.append(listener)

    def hear(self, launcher_id: str, reports: Mapping[str, KernelReport]) -> None:
        """A heartbeat's or activity record's reports, whole: what is absent is not known."""
        now = self._clock.now()
        before = self._heard.get(launcher_id, {})
        self._heard[launcher_id] = {name: _Heard(item, now) for name, item in reports.items()}
        for name, report in reports.items():
            known = before.get(name)
            if known is None or known.report != report:
                for listener in self._listeners:
                    listener(name, report)

    def note(self, kernel_id: str, record: KernelRecord, report: KernelReport) -> None:
        """One kernel's report that we asked for ourselves."""
        mine = self._heard.setdefault(record.launcher_id, {})
        mine[kernel_id] = _Heard(report, self._clock.now())
        for listener in self._listeners:
            listener(kernel_id, report)

    def of(self, kernel_id: str, record: KernelRecord) -> KernelReport | None:
        """The last report for exactly this start of the kernel."""
        heard = self._heard.get(record.launcher_id, {}).get(kernel_id)
        return heard.report if heard is not None and heard.report.nonce == record.nonce else None

    def fresh(self, kernel_id: str, record: KernelRecord) -> bool:
        """The launcher said so within the last heartbeats."""
        heard = self._heard.get(record.launcher_id, {}).get(kernel_id)
        return heard is not None and self._clock.now() - heard.at < FRESH

    def death(self, kernel_id: str, record: KernelRecord) -> str | None:
        """Why the kernel is dead, when its launcher has said so; else None."""
        report = self.of(kernel_id, record)
        if report is None:
            return None
        if not report.alive:
            return report.reason or "its launcher says that the kernel's process is gone"
        if report.execution_state == "dead":
            return report.reason or "the kernel died"
        return None

    def _changed(self, change: Change) -> None:
        if change.kind is Kind.ACTIVITY and change.after is not None:
            record: ActivityRecord = change.after.record
            self.hear(change.name, record.kernels)
