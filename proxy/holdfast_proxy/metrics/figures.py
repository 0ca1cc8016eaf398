"""What one proxy counts: its families, in a registry of their own.

Whoever has something to count calls a method here or a family itself; what only stands somehow is
read at each scrape by ``standing``. It knows Prometheus; it must not know HTTP, etcd or kernels. No
label holds an id: kernels, sessions, users and proxies come and go, and each would leave a series
behind for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from holdfast_proxy.errors import BadRequest, Conflict, Forbidden, ProxyError, StartFailed

#: Seconds by which an event loop is late; an idle one on a busy machine is so by a millisecond.
LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
CALL_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
START_BUCKETS: Final = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0)
TAKEOVER_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)

CLAIM_OUTCOMES: Final = ("won", "lost", "ambiguous", "failed")
TAKEOVER_REASONS: Final = (
    *("lease_gone", "released", "refused", "replaced", "reclaimed", "unowned"),
)
ETCD_FAILURES: Final = (*("unreachable", "unknown", "rejected", "lease_lost", "compacted"),)
START_OUTCOMES: Final = ("started", "failed", "refused", "unavailable")


class ProxyMetrics:
    """One per proxy; edge and cluster count into the same."""

    def __init__(self) -> None:
        # When each series began says nothing that is asked for here.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's
        self._registry = CollectorRegistry(auto_describe=False)
        self._ownership()
        self._etcd()
        self._edge()

    def __repr__(self) -> str:
        return f"<ProxyMetrics {self.claims!r}>"

    def register_build(self, version: str) -> None:
        """Say what runs."""
        name, text = "holdfast_build_info", "1, with the version as label."
        info = Gauge(name, text, ["version", "part"], registry=self._registry)
        info.labels(version, "proxy").set(1)

    def register(self, collector: Collector) -> None:
        """Ask ``collector`` at each scrape, too."""
        self._registry.register(collector)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The body and its content type, in the format that the ``Accept`` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Time a start; what it raises says what became of it."""
        began, outcome = time.monotonic(), "unavailable"
        try:
            yield
            outcome = "started"
        except StartFailed:
            outcome = "failed"
            raise
        except (BadRequest, Conflict, Forbidden):
            outcome = "refused"
            raise
        except ProxyError:
            raise
        finally:
            self.starts.labels(outcome).observe(time.monotonic() - began)

    # --- the families ---

    def _ownership(self) -> None:
        self.claims = self._counter(
            "holdfast_claims",
            "Transactions by which this proxy claimed a kernel.",
            "outcome",
            CLAIM_OUTCOMES,
        )
        self.takeovers = self._counter(
            "holdfast_takeovers",
            "Kernels that this proxy took over, by how their former owner was lost.",
            "reason",
            TAKEOVER_REASONS,
        )
        self.takeover_duration = self._histogram(
            "holdfast_takeover_duration_seconds",
            "Seconds from this proxy's first evidence that the owner is lost until keeper and "
            "launcher had acknowledged the new token.",
            TAKEOVER_BUCKETS,
            "reason",
            ("lease_gone", "released", "refused", "replaced"),
        )
        self.starts = self._histogram(
            "holdfast_start_duration_seconds",
            "Seconds that requests to start a kernel took at the proxy that started it.",
            START_BUCKETS,
            "outcome",
            START_OUTCOMES,
        )

    def _etcd(self) -> None:
        self.etcd_calls = self._histogram(
            "holdfast_etcd_call_duration_seconds",
            "Seconds that calls to etcd took, whatever came of them.",
            CALL_BUCKETS,
            "operation",
            ("get", "range", "txn", "lease_grant", "lease_keepalive", "lease_revoke", "status"),
        )
        self.etcd_failures = self._counter(
            "holdfast_etcd_failures", "Calls to etcd without a good answer.", "kind", ETCD_FAILURES
        )
        self.watch_lag = self._histogram(
            "holdfast_watch_lag_seconds",
            "Seconds from etcd's answer to a write of this proxy until its watch showed it.",
            CALL_BUCKETS,
        )
        self.watches = Counter(
            "holdfast_watches_begun",
            "Times that the cluster was listed and watched anew; the first is this proxy's start.",
            registry=self._registry,
        )

    def _edge(self) -> None:
        self.loop_lag = self._histogram(
            "holdfast_event_loop_lag_seconds",
            "Seconds by which the proxy's event loop was late.",
            LAG_BUCKETS,
        )
        self.requests = Counter(
            "holdfast_requests",
            "Requests answered, by the template of their route.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.request_duration = Histogram(
            "holdfast_request_duration_seconds",
            "Seconds that answering took; of connections that stay open, none.",
            ["route"],
            registry=self._registry,
            buckets=CALL_BUCKETS,
        )
        self.tunnels_opened = Counter(
            "holdfast_tunnels_opened", "Tunnels made to keepers.", registry=self._registry
        )
        self.tunnel_failures = self._counter(
            "holdfast_tunnel_failures",
            "Upgrades that no tunnel came of.",
            "reason",
            ("unreachable", "refused"),
        )

    def _counter(self, name: str, text: str, label: str, values: Sequence[str]) -> Counter:
        family = Counter(name, text, [label], registry=self._registry)
        for value in values:  # there from the start, so that a first event is seen as a rise
            family.labels(value)
        return family

    def _histogram(
        self,
        name: str,
        text: str,
        buckets: Sequence[float],
        label: str | None = None,
        values: Sequence[str] = (),
    ) -> Histogram:
        labels = [] if label is None else [label]
        family = Histogram(name, text, labels, registry=self._registry, buckets=buckets)
        for value in values:
            family.labels(value)
        return family
