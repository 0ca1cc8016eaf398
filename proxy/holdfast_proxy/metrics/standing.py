"""What only stands somehow, read at each scrape: tunnels, lease, kernels, drain.

It knows the edge and the cluster's facts; it decides nothing and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast_proxy.cluster import Readiness
from holdfast_proxy.metrics.facts import ClusterFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeFacts:
    """``to_keeper`` and ``to_client``: bytes through all tunnels there ever were."""

    tunnels: int
    standins: int
    to_keeper: int
    to_client: int
    draining: bool
    readiness: Readiness


class Standing(Collector):
    """``edge`` and ``cluster`` are asked when somebody scrapes."""

    def __init__(self, edge: Callable[[], EdgeFacts], cluster: Callable[[], ClusterFacts]) -> None:
        self._edge = edge
        self._cluster = cluster

    def collect(self) -> Iterator[Metric]:
        yield from _of_edge(self._edge())
        yield from _of_cluster(self._cluster())


def _of_edge(edge: EdgeFacts) -> Iterator[Metric]:
    yield _gauge("holdfast_tunnels", "Tunnels that are open or being made.", edge.tunnels)
    yield _gauge(
        "holdfast_standins", "Clients whose kernel has no keeper to speak to.", edge.standins
    )
    carried = CounterMetricFamily(
        "holdfast_tunnel_bytes", "Bytes carried through tunnels.", labels=["to"]
    )
    carried.add_metric(["keeper"], edge.to_keeper)
    carried.add_metric(["client"], edge.to_client)
    yield carried
    yield _gauge("holdfast_draining", "1 while this proxy drains.", edge.draining)
    ready = GaugeMetricFamily(
        "holdfast_readiness", "1 for the state that /readyz tells.", labels=["state"]
    )
    for state in Readiness:
        told = Readiness.NOT_READY if edge.draining else edge.readiness
        ready.add_metric([state.value.replace(" ", "_")], float(state is told))
    yield ready


def _of_cluster(facts: ClusterFacts) -> Iterator[Metric]:
    kernels = GaugeMetricFamily(
        "holdfast_kernels", "The cluster's kernels as this proxy has seen them.", labels=["state"]
    )
    for state, count in sorted(facts.kernels.items()):
        kernels.add_metric([state], count)
    yield kernels
    yield _gauge(
        "holdfast_unreadable_records", "Kernels' records that cannot be read.", facts.unreadable
    )
    owned = GaugeMetricFamily(
        "holdfast_owned_kernels",
        "Kernels that this proxy owns: with a token that keeper and launcher have acknowledged, "
        "or not yet.",
        labels=["token"],
    )
    owned.add_metric(["acknowledged"], facts.effective)
    owned.add_metric(["pending"], facts.owned - facts.effective)
    yield owned
    yield _gauge("holdfast_proxies", "Proxies with a lease, this one included.", facts.proxies)
    yield _gauge("holdfast_launchers", "Launchers with a lease.", facts.launchers)
    yield CounterMetricFamily(
        "holdfast_stale_tokens_told",
        "Times that a keeper or a launcher told this proxy that its token is stale.",
        value=facts.stale_tokens,
    )
    yield _gauge(
        "holdfast_watch_unseen_seconds",
        "Seconds for which the watch has not shown a write of this proxy; 0 when it has.",
        facts.unseen_seconds,
    )
    yield from _of_lease(facts)


def _of_lease(facts: ClusterFacts) -> Iterator[Metric]:
    """Absent without a lease: there is no age that would be true."""
    if facts.lease_age is not None:
        yield _gauge(
            "holdfast_lease_age_seconds",
            "Seconds since the renewal that etcd last answered was sent.",
            facts.lease_age,
        )
    if facts.fenced_in is not None:
        yield _gauge(
            "holdfast_lease_remaining_seconds",
            "Seconds until this proxy must stop to start, delete and claim; below 0 it has.",
            facts.fenced_in,
        )
    if facts.leads is not None:
        yield _gauge("holdfast_leader", "1 on the proxy that leads.", facts.leads)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))
