"""A launcher's ``/metrics``: the families of its keepers, and what it counts itself.

A registry of its own, never the library's global one. Keepers' files are read when somebody
scrapes, not before. It knows Prometheus and what it is handed; it must not know HTTP, and decides
nothing. No label holds an id: what there is one of for each kernel would grow without end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from holdfast_launcher.engines.contract import LaunchFailed
from holdfast_launcher.metrics.families import counters, failovers, gauges, stale_tokens

#: Seconds by which an event loop is late; an idle one on a busy machine is so by a millisecond.
LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
LAUNCH_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class KeeperFigures:
    """All keepers of one moment. ``phases``: how many are in each."""

    sums: Mapping[str, float] = field(default_factory=dict)
    levels: Iterable[Mapping[str, float]] = ()
    phases: Mapping[str, int] = field(default_factory=dict)


class LauncherMetrics:
    """``keepers`` is set by whoever has them, before the first scrape."""

    def __init__(self, *, version: str) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's; when each began says nothing here
        self.keepers: Callable[[], KeeperFigures] = KeeperFigures
        registry = self._registry = CollectorRegistry(auto_describe=False)
        info = Gauge(
            "holdfast_build_info",
            "1, with the version as label.",
            ["version", "part"],
            registry=registry,
        )
        info.labels(version, "launcher").set(1)
        self._stale = 0
        self._count_own(registry)
        registry.register(_Keepers(self))

    def _count_own(self, registry: CollectorRegistry) -> None:
        self.launches = Histogram(
            "holdfast_keeper_launch_duration_seconds",
            "Seconds that launching a keeper took, by what became of it.",
            ["outcome"],
            registry=registry,
            buckets=LAUNCH_BUCKETS,
        )
        self.takeovers = Counter(
            "holdfast_keeper_takeovers",
            "Keepers that fell while their kernel lived, by what became of the kernel.",
            ["outcome"],
            registry=registry,
        )
        self.heartbeats = Counter(
            "holdfast_heartbeats",
            "Rounds of heartbeats to the proxies.",
            ["outcome"],
            registry=registry,
        )
        self.loop_lag = Histogram(
            "holdfast_event_loop_lag_seconds",
            "Seconds by which the launcher's event loop was late.",
            registry=registry,
            buckets=LAG_BUCKETS,
        )
        for outcome in ("ready", "failed", "broke_off"):
            self.launches.labels(outcome)
        for outcome in ("begun", "adopted", "kernel_ended", "put_off"):
            self.takeovers.labels(outcome)
        for outcome in ("taken", "refused", "no_proxy"):
            self.heartbeats.labels(outcome)

    def __repr__(self) -> str:
        return f"<LauncherMetrics {self._stale} stale tokens refused>"

    @property
    def stale(self) -> int:
        """Stale tokens that the launcher itself refused."""
        return self._stale

    @contextmanager
    def launching(self) -> Iterator[None]:
        """Time the launch of a keeper; what it raises says what became of it."""
        began, outcome = time.monotonic(), "broke_off"
        try:
            yield
            outcome = "ready"
        except LaunchFailed:
            outcome = "failed"
            raise
        finally:
            self.launches.labels(outcome).observe(time.monotonic() - began)

    def refused_stale_token(self) -> None:
        self._stale += 1

    def render(self, accept: str) -> tuple[bytes, str]:
        """The body and its content type, in the format that the ``Accept`` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Keepers(Collector):
    """Asked at each scrape."""

    def __init__(self, metrics: LauncherMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        found = self._metrics.keepers()
        yield from counters(found.sums)
        yield from gauges(found.levels)
        yield failovers(found.sums)
        yield stale_tokens(
            keepers=found.sums.get("stale_tokens", 0.0), launcher=self._metrics.stale
        )
        phases = GaugeMetricFamily(
            "holdfast_keepers",
            "Kernels of this launcher by what their keeper does.",
            labels=["phase"],
        )
        for phase, count in sorted(found.phases.items()):
            phases.add_metric([phase], count)
        yield phases
