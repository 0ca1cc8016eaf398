"""Sums over keepers that come and go: they never fall, and nothing is counted twice."""

from __future__ import annotations

from pathlib import Path

from holdfast_launcher.keeper.tally import Tally
from holdfast_launcher.metrics.figures import KeeperFigures, LauncherMetrics
from holdfast_launcher.metrics.totals import KeeperTotals
from support.scrape import parse


def test_what_an_ended_keeper_counted_stays() -> None:
    totals = KeeperTotals()
    totals.observe("a", "e1", {"resumes": 3})
    totals.observe("b", "e2", {"resumes": 1})
    totals.close("a")
    assert totals.sums() == {"resumes": 4}
    totals.observe("a", "e1", {"resumes": 3})  # its file is read once more
    assert totals.sums() == {"resumes": 4}


def test_a_keeper_that_takes_over_counts_anew_and_adds_up() -> None:
    totals = KeeperTotals()
    totals.observe("a", "e1", {"resumes": 3})
    totals.observe("a", "e2", {"resumes": 1})
    assert totals.sums() == {"resumes": 4}
    totals.observe("a", "e2", {"resumes": 0})  # no sum falls
    assert totals.sums() == {"resumes": 4}


def test_a_launcher_that_is_restarted_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    before = KeeperTotals(path)
    before.observe("a", "e1", {"resumes": 3})
    before.observe("b", "e2", {"resumes": 1})
    before.close("a")
    after = KeeperTotals(path)
    after.observe("b", "e2", {"resumes": 2})
    after.observe("a", "e1", {"resumes": 3})  # killed before the directory was gone
    assert after.sums() == {"resumes": 5}
    path.write_text('{"ended": {"resumes": "much"}, "over": 7}')
    assert KeeperTotals(path).sums() == {}


def test_what_a_kernels_own_code_may_write_there_is_bounded() -> None:
    totals = KeeperTotals()
    made_up = {f"x{n}": 1.0 for n in range(10_000)}
    totals.observe("a", "e1", {"resumes": float("nan"), "gaps:disk": -5, "y": float("inf")})
    totals.observe("a", "e1", made_up)
    assert 0 < len(totals.sums()) <= 256
    assert all(count == 1.0 for count in totals.sums().values())


def test_the_histogram_is_cumulative_and_takes_other_versions_bounds() -> None:
    tally = Tally()
    for seconds, seen in ((0.04, True), (0.25, True), (4000.0, True), (2.5, False)):
        tally.failover(seconds, seen=seen)
    metrics = LauncherMetrics(version="0")
    sums = {**tally.counts, "failovers:0.6": 1.0, "failovers:nonsense": 1.0}
    metrics.keepers = lambda: KeeperFigures(sums=sums)
    figures = parse(metrics.render("")[0].decode())
    name = "holdfast_failover_duration_seconds"
    assert figures(f"{name}_bucket", loss="seen", le="0.05") == 1
    assert figures(f"{name}_bucket", loss="seen", le="0.3") == 2
    assert figures(f"{name}_bucket", loss="seen", le="0.75") == 3
    assert figures(f"{name}_count", loss="seen") == 5
    assert figures(f"{name}_bucket", loss="unseen", le="3") == 1
    assert figures(f"{name}_sum", loss="unseen") == 2.5
