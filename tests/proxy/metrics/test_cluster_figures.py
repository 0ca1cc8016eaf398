"""A real cluster through real faults: its counters move, and its logs tell one kernel's story.

One run for all tests here: a proxy that is killed, a log that is too small, messages that come
twice, tokens that are stale. Each test reads what that left.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from support.cluster import Cluster
from support.keeper_clients import PlainClient, StreamClient, execute
from support.keeper_process import KeeperProcess
from support.processes import wait_until
from support.proxy_door import ProxyDoor
from support.scrape import Scrape, scrape

pytestmark = pytest.mark.e2e

SCRAPER = "scraper-token-0123456789"
#: Far more than a kernel's log may hold here.
LOUD = "for i in range(40): print('x' * 20_000, flush=True)"
UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")


@dataclass
class Run:
    """What is left of the run: scrapes of each part, and every log line, parsed."""

    kernel_id: str
    before: Scrape
    survivor: Scrape
    launcher: Scrape
    openmetrics: Scrape
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def story(self, part: str, event: str) -> list[dict[str, Any]]:
        """Lines of ``part`` with this event that bear the kernel's id."""
        lines = self.logs[part]
        return [x for x in lines if x.get("event") == event and x.get("kernel") == self.kernel_id]


def launcher_url(cluster: Cluster) -> str:
    return str(json.loads((cluster.base / "launcher-ready.json").read_text())["url"])


def request(url: str, method: str, token: str, **headers: str) -> int:
    asked = urllib.request.Request(url, method=method, headers=headers)
    asked.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def read_log(path: Path) -> list[dict[str, Any]]:
    lines = [line for line in path.read_text().splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]


async def start_kernel(cluster: Cluster, http: aiohttp.ClientSession) -> str:
    kernel_id = str(uuid.uuid4())
    async with http.post(
        f"{cluster.proxy_urls[0]}/api/kernels",
        json={"name": "python3", "env": {"KERNEL_ID": kernel_id}},
        headers={"Authorization": f"token {cluster.token}"},
    ) as answer:
        assert answer.status == 201, await answer.text()
    return kernel_id


async def stand_faults(cluster: Cluster, kernel_id: str, http: aiohttp.ClientSession) -> None:
    """A reader that misses output, a message that comes twice, a proxy that is killed."""
    door = ProxyDoor(cluster, http, kernel_id)
    keeper = cast("KeeperProcess", door)  # all that its clients want of one
    reader, writer = StreamClient(keeper, "reader"), PlainClient(keeper, "writer")
    await reader.connect()
    await reader.live()
    await reader.run("1")
    reader.cut()
    await writer.connect()
    await writer.run(LOUD)
    await reader.connect()
    await reader.until(lambda: bool(reader.gaps))
    await send_twice(reader)
    cluster.proxies[0].kill()
    door.proxy = 1
    reader.cut()
    await reader.connect()
    _, said = await reader.run("print('here')")
    assert "".join(said) == "here\n"
    assert reader.ws is not None
    await reader.ws.close()


async def send_twice(client: StreamClient) -> None:
    """The same frame again, as a client may whose connection broke behind it."""
    assert client.ws is not None
    message = execute("print('once')")
    client.stream.send(message_bytes(message))
    frames = list(client.stream.next_frames())
    for frame in (*frames, *frames):
        await client.ws.send_bytes(frame)
    await client.until(lambda: client.done(message))


def message_bytes(message: Any) -> bytes:
    from holdfast_protocol.jupyter import encode_v1

    return encode_v1(message)


def show_stale_tokens(cluster: Cluster, kernel_id: str) -> None:
    """What a proxy that slept would do: the launcher and the keeper are shown an old token."""
    state = cluster.base / "launcher"
    token = (state / "access_token").read_text().strip()
    url = f"{launcher_url(cluster)}/v1/kernels/{kernel_id}/fence"
    assert request(url, "POST", token, **{"Holdfast-Fence": "0.1"}) == 412
    keeper = json.loads((state / "kernels" / kernel_id / "keeper.json").read_text())
    url = f"http://127.0.0.1:{keeper['endpoint']['port']}/v1/fence"
    for _ in range(2):
        assert request(url, "POST", keeper["credential"], **{"Holdfast-Fence": "0.1"}) == 412


def figures_when(cluster: Cluster, condition: Any) -> Scrape:
    """The launcher's, once they say what keepers write a second later."""

    def look() -> Scrape | None:
        found = scrape(launcher_url(cluster), SCRAPER)
        return found if condition(found) else None

    return wait_until(look, seconds=30, what="the keeper's counts at its launcher")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    base = tmp_path_factory.mktemp("figures")
    cluster = Cluster(
        base,
        proxy_toml=f'metrics_token = "{SCRAPER}"',
        launcher_toml=(
            f'metrics_token = "{SCRAPER}"\nready_file = "{base / "launcher-ready.json"}"\n'
            "log_memory_bytes = 65536\nlog_disk_bytes = 65536\n"
        ),
    )
    try:
        yield asyncio.run(live_through(cluster.start()))
    finally:
        cluster.stop()


async def live_through(cluster: Cluster) -> Run:
    async with aiohttp.ClientSession() as http:
        kernel_id = await start_kernel(cluster, http)
        before = scrape(cluster.proxy_urls[0], SCRAPER)
        await stand_faults(cluster, kernel_id, http)
    show_stale_tokens(cluster, kernel_id)

    def survivor() -> Scrape | None:
        found = scrape(cluster.proxy_urls[1], SCRAPER)
        return found if found.total("holdfast_takeover_duration_seconds_count") else None

    after = wait_until(survivor, seconds=30, what="the takeover in effect")
    figures_when(cluster, lambda s: s("holdfast_stale_tokens_refused_total", by="keeper") == 2)
    keeper_log = read_log(cluster.base / "launcher" / "kernels" / kernel_id / "keeper.log")
    url = f"{cluster.proxy_urls[1]}/api/kernels/{kernel_id}"
    assert request(url, "DELETE", cluster.token) == 204
    ended = scrape(launcher_url(cluster), SCRAPER)
    after = scrape(cluster.proxy_urls[1], SCRAPER)
    modern = scrape(cluster.proxy_urls[1], cluster.token, openmetrics=True)
    result = Run(kernel_id, before, after, ended, modern)
    for name in ("proxy-0", "proxy-1", "launcher"):
        result.logs[name] = read_log(cluster.base / f"{name}.log")
    result.logs["keeper"] = keeper_log
    check_who_may_read(cluster)
    return result


def check_who_may_read(cluster: Cluster) -> None:
    """The scraper's token opens the figures and nothing else; without one nobody reads them."""
    for url in (cluster.proxy_urls[1], launcher_url(cluster)):
        assert request(f"{url}/metrics", "GET", "wrong") == 401
        assert request(f"{url}/metrics", "GET", SCRAPER) == 200
    assert request(f"{cluster.proxy_urls[1]}/api/kernels", "GET", SCRAPER) == 401
    assert request(f"{launcher_url(cluster)}/v1/kernels", "GET", SCRAPER) == 401


def test_a_proxy_counts_claims_starts_and_what_it_carries(run: Run) -> None:
    figures = run.before
    assert figures("holdfast_start_duration_seconds_count", outcome="started") == 1
    assert figures("holdfast_kernels", state="running") == 1
    assert figures("holdfast_owned_kernels", token="acknowledged") == 1
    assert figures("holdfast_proxies") == 2
    assert figures("holdfast_launchers") == 1
    assert 0 <= figures("holdfast_lease_age_seconds") < 5
    assert 0 < figures("holdfast_lease_remaining_seconds") < 5
    assert figures("holdfast_draining") == 0
    assert figures("holdfast_readiness", state="ready") == 1
    assert figures("holdfast_etcd_call_duration_seconds_count", operation="txn") >= 3
    assert figures("holdfast_watch_lag_seconds_count") >= 1
    assert figures("holdfast_event_loop_lag_seconds_count") > 0
    started = {"method": "POST", "route": "/api/kernels", "status": "201"}
    assert figures("holdfast_requests_total", **started) == 1


def test_a_takeover_is_counted_with_its_reason_and_its_time(run: Run) -> None:
    """Its port refused connections, or its lease went first: both are this owner's loss."""
    figures = run.survivor
    reasons = ("refused", "lease_gone")
    assert sum(figures("holdfast_takeovers_total", reason=reason) for reason in reasons) == 1
    assert figures.total("holdfast_takeovers_total") == 1
    assert figures.total("holdfast_takeover_duration_seconds_count") == 1
    assert 0 < figures.total("holdfast_takeover_duration_seconds_sum") < 30
    assert figures("holdfast_claims_total", outcome="won") == 1
    assert figures("holdfast_tunnels_opened_total") == 1
    assert figures("holdfast_tunnel_bytes_total", to="keeper") > 0
    assert figures("holdfast_tunnel_bytes_total", to="client") > 0


def test_what_keepers_counted_is_there_after_they_have_ended(run: Run) -> None:
    figures = run.launcher
    assert figures.total("holdfast_gaps_total") >= 1
    assert figures("holdfast_log_dropped_entries_total") > 0
    assert figures("holdfast_duplicates_dropped_total") == 1
    assert figures("holdfast_stale_tokens_refused_total", by="keeper") == 2
    assert figures("holdfast_stale_tokens_refused_total", by="launcher") == 1
    assert figures("holdfast_resumes_total") == 2
    assert figures("holdfast_sessions_opened_total") == 2
    assert figures("holdfast_failover_duration_seconds_count", loss="seen") >= 1
    assert figures.total("holdfast_failover_duration_seconds_count") == 2
    assert figures("holdfast_keeper_launch_duration_seconds_count", outcome="ready") == 1
    assert figures("holdfast_heartbeats_total", outcome="taken") >= 1
    # and what only stands somehow is gone with the kernel
    assert figures("holdfast_log_disk_bytes") == figures("holdfast_log_memory_bytes") == 0
    assert figures("holdfast_connections") == figures("holdfast_sessions") == 0


def test_no_label_holds_an_id(run: Run) -> None:
    for part in (run.before, run.survivor, run.launcher, run.openmetrics):
        for name, label, value in part.labels():
            assert not UUID.search(value), f"{name}{{{label}={value!r}}}"
            assert value not in {"proxy-0", "proxy-1", "launcher-0", "reader", "writer"}


def test_every_family_has_our_prefix_and_openmetrics_is_spoken(run: Run) -> None:
    for part in (run.survivor, run.launcher, run.openmetrics):
        assert {family.name.partition("_")[0] for family in part.families} == {"holdfast"}
        assert all(family.documentation for family in part.families)
    assert run.openmetrics.names == run.survivor.names


def test_the_logs_tell_one_kernels_story(run: Run) -> None:
    """By its id across all parts; sessions, proxies and claims are on the lines they belong to."""
    (owned,) = run.story("proxy-0", "kernel owned")
    assert owned["proxy"] == "proxy-0"
    (started,) = run.story("proxy-0", "kernel started")
    assert started["claim"] == owned["claim"]
    assert started["launcher"] == "launcher-0"
    (launched,) = run.story("launcher", "keeper started")
    assert launched["launcher"] == "launcher-0"
    tunnels = run.story("proxy-0", "tunnel open")
    assert {line["session"] for line in tunnels} == {"reader", "writer"}
    connected = run.story("keeper", "session.connected")
    assert {line["tunnel"] for line in tunnels} <= {line["tunnel"] for line in connected}
    assert "reader" in {line["session"] for line in run.story("keeper", "session.gap")}
    (stale,) = run.story("launcher", "stale token refused")
    assert stale["fence"] == "0.1"
    assert len(run.story("keeper", "fence.refused")) == 2
    (taken,) = run.story("proxy-1", "kernel owned")
    assert taken["claim"] != owned["claim"]
    (effect,) = run.story("proxy-1", "claim in effect")
    assert (effect["claim"], effect["proxy"]) == (taken["claim"], "proxy-1")
    assert effect["token"] in {line["fence"] for line in run.story("keeper", "fence.acknowledged")}
    resumed = run.story("keeper", "session.resumed")
    assert {line["session"] for line in resumed} == {"reader"}
    assert [line["proxy"] for line in connected][-1] == "proxy-1"
    (deleted,) = run.story("proxy-1", "kernel deleted")
    assert deleted["claim"] == taken["claim"]
