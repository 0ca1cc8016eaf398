"""What Prometheus would have after a scrape, by name and labels."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True)
class Scrape:
    """One answer of ``/metrics``. Asking for a sample that is not there fails the test."""

    families: tuple[Metric, ...]
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(repr=False)

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def total(self, name: str) -> float:
        """Over all labels."""
        found = [value for (known, _), value in self.samples.items() if known == name]
        assert found, f"no sample {name}"
        return sum(found)

    @property
    def names(self) -> set[str]:
        """Of samples, as alert rules name them."""
        return {name for name, _ in self.samples}

    def labels(self) -> Iterator[tuple[str, str, str]]:
        """(sample, label, value) of everything."""
        for name, labels in self.samples:
            for label, value in labels:
                yield name, label, value


def parse(body: str, *, openmetrics: bool = False) -> Scrape:
    """Read an answer strictly. Raises ValueError for what is not the format."""
    families = tuple((parse_openmetrics if openmetrics else parse_text)(body))
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    return Scrape(families, samples)


def scrape(url: str, token: str | None, *, openmetrics: bool = False) -> Scrape:
    """Ask ``url`` (without the path). Blocks. Raises urllib.error.HTTPError."""
    request = urllib.request.Request(f"{url}/metrics")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    if openmetrics:
        request.add_header("Accept", OPENMETRICS)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return parse(answer.read().decode(), openmetrics=openmetrics)
