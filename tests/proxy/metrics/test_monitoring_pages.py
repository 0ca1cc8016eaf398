"""What the manuals tell Prometheus exists: each name, label and value is really served."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from holdfast_launcher.metrics.figures import KeeperFigures, LauncherMetrics
from holdfast_proxy.cluster import Readiness
from holdfast_proxy.metrics.facts import ClusterFacts
from holdfast_proxy.metrics.figures import ProxyMetrics
from holdfast_proxy.metrics.standing import EdgeFacts, Standing
from support.scrape import Scrape, parse

DOCS = Path(__file__).parents[3] / "docs"
NAME = re.compile(r"holdfast_\w+")


def served() -> list[Scrape]:
    """Everything that a proxy and a launcher have names for."""
    proxy, launcher = ProxyMetrics(), LauncherMetrics(version="0")
    edge = EdgeFacts(
        tunnels=0,
        standins=0,
        to_keeper=0,
        to_client=0,
        draining=False,
        readiness=Readiness.READY,
    )
    facts = ClusterFacts(lease_age=1.0, fenced_in=3.0, leads=True, kernels={"running": 1})
    proxy.register(Standing(lambda: edge, lambda: facts))
    proxy.register_build("0")
    proxy.requests.labels("GET", "/", "200").inc()
    proxy.request_duration.labels("/").observe(0.1)
    launcher.keepers = lambda: KeeperFigures(phases={"alive": 1})
    return [parse(part.render("")[0].decode()) for part in (proxy, launcher)]


def blocks() -> list[Any]:
    text = (DOCS / "howto" / "monitoring.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_each_alert_asks_for_what_is_served() -> None:
    names = set().union(*(part.names for part in served()))
    labels = {item for part in served() for item in part.labels()}
    (rules,) = [block["groups"][0]["rules"] for block in blocks() if "groups" in block]
    assert len(rules) >= 8
    for rule in rules:
        asked = set(NAME.findall(rule["expr"]))
        assert asked, rule
        assert asked <= names, asked - names
        assert rule["annotations"]["summary"]
        for name, selector in re.findall(r"(holdfast_\w+)\{(.*?)\}", rule["expr"]):
            for label, values in re.findall(r'(\w+)=~?"(.*?)"', selector):
                for value in values.split("|"):
                    assert (name, label, value) in labels, (name, label, value)


def test_the_scrape_configuration_is_one() -> None:
    (jobs,) = [block["scrape_configs"] for block in blocks() if "scrape_configs" in block]
    assert [job["job_name"] for job in jobs] == ["holdfast-proxy", "holdfast-launcher"]
    for job in jobs:
        assert job["authorization"]["credentials_file"]
        assert job["static_configs"][0]["targets"]


def test_the_reference_names_what_is_served_and_nothing_else() -> None:
    text = (DOCS / "reference" / "metrics.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `holdfast_")]
    documented = {name for row in rows for name in NAME.findall(row.split("|")[1])}
    families = {
        family.name + ("_total" if family.type == "counter" else "")
        for part in served()
        for family in part.families
    }
    assert documented == families


def test_the_reference_names_every_value_of_a_label() -> None:
    text = (DOCS / "reference" / "metrics.md").read_text()
    told = {"outcome", "reason", "loss", "by", "cause", "kind", "to", "token"}
    for part in served():
        for name, label, value in part.labels():
            if label in told:
                assert re.search(rf"\b{re.escape(value)}\b", text), f"{name}{{{label}={value}}}"
