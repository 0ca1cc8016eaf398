"""The names under which a launcher's figures reach Prometheus, and what each of them means.

A keeper's words (``keeper.tally``) become families here; what a later keeper counts and this
launcher has no name for is left out. The tables are what ``docs/reference/metrics.md`` lists. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from holdfast_launcher.keeper.tally import FAILOVER_BOUNDS


@dataclass(frozen=True, slots=True)
class Family:
    """``word``: the keeper's; ``label``: what the part behind its colon is called."""

    word: str
    name: str
    text: str
    label: str | None = None
    #: Label values that are there from the start, so that a first event is seen as a rise.
    values: tuple[str, ...] = ()


COUNTS: Final = (
    Family(
        "gaps",
        "holdfast_gaps",
        "Times that a session was told, in its cells, that output is missing.",
        "reason",
        ("log_full", "disk", "node_quota", "kernel", "replaced", "other"),
    ),
    Family("log_entries", "holdfast_log_appended_entries", "Messages written into kernels' logs."),
    Family(
        "log_dropped",
        "holdfast_log_dropped_entries",
        "Messages that left a log before everybody had read them.",
    ),
    Family(
        "kernel_lost",
        "holdfast_kernel_lost_messages",
        "Messages that a kernel numbered and its keeper never received.",
    ),
    Family(
        "duplicates",
        "holdfast_duplicates_dropped",
        "Client messages that came again after a reconnect and were not run again.",
    ),
    Family("client_messages", "holdfast_client_messages", "Client messages accepted, each once."),
    Family("sessions_opened", "holdfast_sessions_opened", "Sessions that came for the first time."),
    Family("resumes", "holdfast_resumes", "Connections that went on with a session there was."),
    Family(
        "restarts",
        "holdfast_kernel_restarts",
        "Kernels that were started again, by their user or after a crash.",
        "cause",
        ("asked", "crashed"),
    ),
    Family("deaths", "holdfast_kernel_deaths", "Kernels that ended and were not started again."),
)
LEVELS: Final = (
    Family("log_memory_bytes", "holdfast_log_memory_bytes", "Bytes of kernels' logs in memory."),
    Family("log_disk_bytes", "holdfast_log_disk_bytes", "Bytes of kernels' logs on disk."),
    Family("log_entries", "holdfast_log_entries", "Messages that kernels' logs hold."),
    Family("sessions", "holdfast_sessions", "Sessions that keepers know, connected or away."),
    Family("connections", "holdfast_connections", "Clients' connections at keepers."),
)
FAILOVER_NAME: Final = "holdfast_failover_duration_seconds"
FAILOVER_TEXT: Final = (
    "Seconds for which a session had no connection, until one went on with it: from its loss if "
    "its keeper saw it, else from when its client was last heard."
)
STALE_NAME: Final = "holdfast_stale_tokens_refused"
STALE_TEXT: Final = "Calls refused because their fencing token was not the highest any more."


def counters(sums: Mapping[str, float]) -> Iterator[Metric]:
    """One counter family for each of ``COUNTS``."""
    for family in COUNTS:
        labels = [] if family.label is None else [family.label]
        metric = CounterMetricFamily(family.name, family.text, labels=labels)
        if family.label is None:
            metric.add_metric([], sums.get(family.word, 0.0))
        else:
            for value in family.values:
                metric.add_metric([value], sums.get(f"{family.word}:{value}", 0.0))
        yield metric


def gauges(levels: Iterable[Mapping[str, float]]) -> Iterator[Metric]:
    """One gauge family for each of ``LEVELS``, summed over the keepers that live."""
    every = list(levels)
    for family in LEVELS:
        total = sum(level.get(family.word, 0.0) for level in every)
        yield GaugeMetricFamily(family.name, family.text, value=total)


def failovers(sums: Mapping[str, float]) -> Metric:
    """The histogram that keepers fill; a bucket of a bound that is not ours counts as the next."""
    metric = HistogramMetricFamily(FAILOVER_NAME, FAILOVER_TEXT, labels=["loss"])
    for word, loss in (("failovers", "seen"), ("unseen_failovers", "unseen")):
        metric.add_metric([loss], _buckets(sums, word), sums.get(f"{word}_seconds", 0.0))
    return metric


def _buckets(sums: Mapping[str, float], word: str) -> list[tuple[str, float]]:
    held: dict[float, float] = dict.fromkeys((*FAILOVER_BOUNDS, float("inf")), 0.0)
    for name, count in sums.items():
        known, _, text = name.partition(":")
        if known == word and text:
            held[_bound(text, held)] += count
    buckets, below = [], 0.0
    for bound, count in held.items():
        below += count
        buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", below))
    return buckets


def _bound(text: str, ours: Iterable[float]) -> float:
    try:
        bound = float(text)
    except ValueError:
        bound = float("inf")
    return min((known for known in ours if known >= bound), default=float("inf"))


def stale_tokens(*, keepers: float, launcher: float) -> Metric:
    """Who refused them."""
    metric = CounterMetricFamily(STALE_NAME, STALE_TEXT, labels=["by"])
    metric.add_metric(["keeper"], keepers)
    metric.add_metric(["launcher"], launcher)
    return metric
