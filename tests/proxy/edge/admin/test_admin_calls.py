"""The administrators' calls over a socket: who is let in, what they are answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from holdfast_proxy.cluster import Readiness
from holdfast_proxy.config import ConfigError, ProxyConfig, Secret, UserConfig, check_config
from holdfast_proxy.edge.admin import routes
from holdfast_proxy.edge.drain import drain
from holdfast_proxy.errors import NotFound, Unavailable
from support.edge_server import EdgeServer, serve_edge, until
from support.fake_administration import kernel_view, overview
from support.fake_cluster import FakeCluster

USERS = (
    UserConfig(name="ann", token=Secret("ann-token")),
    UserConfig(name="bob", token=Secret("bob-token")),
)
MANY = ProxyConfig(users=USERS, admins=("ann",), cluster_key=Secret("key"))
SINGLE = ProxyConfig(token=Secret("t"), single_user=True, cluster_key=Secret("key"))
ONE = ProxyConfig(token=Secret("t"), cluster_key=Secret("key"))
CALLS = [
    ("GET", "cluster"),
    ("GET", "cluster/events"),
    ("GET", "checks"),
    ("GET", "proxy"),
    ("POST", "proxies/p1/drain"),
]


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


@asynccontextmanager
async def served(
    cluster: FakeCluster, config: ProxyConfig = SINGLE
) -> AsyncIterator[tuple[EdgeServer, aiohttp.ClientSession]]:
    async with serve_edge(cluster, config=config) as server, aiohttp.ClientSession() as http:
        yield server, http


async def ask(
    server: EdgeServer,
    http: aiohttp.ClientSession,
    path: str,
    token: str = "t",  # noqa: S107 (no secret)
    **more: str,
) -> tuple[int, dict[str, Any]]:
    url = f"{server.url}holdfast/v1/{path}"
    async with http.get(url, headers=bearer(token, **more)) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_who_is_no_administrator_is_told_so(
    cluster: FakeCluster, method: str, path: str
) -> None:
    async with served(cluster, MANY) as (server, http):
        url = f"{server.url}holdfast/v1/{path}"
        async with http.request(method, url, headers=bearer("bob-token")) as answer:
            assert answer.status == 403
            body = await answer.json()
        assert body["reason"] == "not_an_admin"
        assert "'bob'" in body["message"]
        assert "admins" in body["message"]
        async with http.request(method, url) as answer:
            assert answer.status == 401
    assert cluster.admin.looks == 0


@pytest.mark.parametrize(
    ("config", "token", "more", "status"),
    [
        (MANY, "ann-token", {}, 200),
        (SINGLE, "t", {}, 200),
        (ONE, "t", {}, 403),  # one token, but nobody has said that all of it is that user's
        (MANY, "key", {"Holdfast-Forwarded": "p2"}, 200),  # another proxy for itself
        (MANY, "key", {"Holdfast-Forwarded": "p2", "Holdfast-User": "bob"}, 403),
    ],
)
async def test_who_may_see_the_cluster(
    cluster: FakeCluster, config: ProxyConfig, token: str, more: dict[str, str], status: int
) -> None:
    async with served(cluster, config) as (server, http):
        assert (await ask(server, http, "cluster", token, **more))[0] == status


def test_an_administrator_must_be_a_user() -> None:
    with pytest.raises(ConfigError, match="admins: eve"):
        check_config(ProxyConfig(users=USERS, admins=("ann", "eve")))
    check_config(MANY)


async def test_the_document_has_what_the_page_is_built_on(cluster: FakeCluster) -> None:
    async with served(cluster) as (server, http):
        status, body = await ask(server, http, "cluster")
    assert status == 200
    assert {"version", "cluster", "self", "mode", "era", "time", "etcd"} < body.keys()
    assert body["version"] == 1
    assert body["etcd"].keys() >= {"reachable", "version", "warnings", "endpoints", "lease_age"}
    proxy, launcher, kernel = body["proxies"][0], body["launchers"][0], body["kernels"][0]
    assert proxy.keys() >= {"id", "url", "version", "boot_id", "self", "status", "tunnels", "owned"}
    assert (proxy["self"], body["proxies"][1]["self"]) == (True, False)
    assert launcher["capacity"] == {"kernels": 10}
    assert kernel["log"].keys() >= {"bytes", "limit", "head", "floor"}
    assert kernel.keys() >= {
        "id", "name", "user", "launcher", "owner", "state", "reason", "last_activity",
        "connections", "incarnation", "started",
    }  # fmt: skip
    assert body["timeline"][-1].keys() >= {"time", "kind", "kernel", "proxy", "launcher", "detail"}


@pytest.mark.parametrize(("query", "lines"), [("", 3), ("?timeline=2", 2), ("?timeline=0", 0)])
async def test_the_newest_lines_of_the_timeline(
    cluster: FakeCluster, query: str, lines: int
) -> None:
    async with served(cluster) as (server, http):
        _, body = await ask(server, http, f"cluster{query}")
    assert [line["detail"] for line in body["timeline"]] == ["line 0", "line 1", "line 2"][
        3 - lines :
    ]


@pytest.mark.parametrize("wrong", ["x", "-1", "1e3", "9" * 9])
async def test_a_wrong_number_of_lines(cluster: FakeCluster, wrong: str) -> None:
    async with served(cluster) as (server, http):
        assert (await ask(server, http, f"cluster?timeline={wrong}"))[0] == 400


async def test_everybody_who_looks_within_a_second_shares_one_look(cluster: FakeCluster) -> None:
    async with served(cluster) as (server, http):
        answers = await asyncio.gather(*(ask(server, http, "cluster") for _ in range(20)))
        assert {status for status, _ in answers} == {200}
        assert cluster.admin.looks == 1


async def test_before_the_first_sync_it_is_503(cluster: FakeCluster) -> None:
    cluster.admin.failure = Unavailable("this proxy has not read the cluster yet")
    async with served(cluster) as (server, http):
        status, body = await ask(server, http, "cluster")
        assert (status, body["message"]) == (503, "this proxy has not read the cluster yet")
        cluster.admin.failure = None
        assert (await ask(server, http, "cluster"))[0] == 200, "a failure is not kept"


async def test_a_proxy_says_what_only_it_knows(cluster: FakeCluster) -> None:
    cluster.state = (Readiness.DEGRADED, "no lease")
    async with served(cluster) as (server, http):
        _, body = await ask(server, http, "proxy", "key", **{"Holdfast-Forwarded": "p2"})
    assert (body["status"], body["tunnels"]) == ("degraded", 0)


# --- drain ---


async def test_a_drain_begins_this_proxys_end_once_it_has_answered(cluster: FakeCluster) -> None:
    stopped = asyncio.Event()
    async with served(cluster) as (server, http):
        server.edge.stop = stopped.set
        url = f"{server.url}holdfast/v1/proxies/p1/drain"
        async with http.post(url, headers=bearer("t")) as answer:
            assert (answer.status, await answer.json()) == (202, {"draining": "p1"})
        async with asyncio.timeout(5):
            await stopped.wait()
    assert cluster.admin.drained == []


async def test_a_drain_of_another_proxy_is_passed_on_once(cluster: FakeCluster) -> None:
    async with served(cluster) as (server, http):
        url = f"{server.url}holdfast/v1/proxies/p2/drain"
        async with http.post(url, headers=bearer("t")) as answer:
            assert answer.status == 202
        assert cluster.admin.drained == ["p2"]
        again = bearer("key", **{"Holdfast-Forwarded": "p3"})
        async with http.post(url, headers=again) as answer:
            assert answer.status == 400, "what was passed on is not passed on again"
        assert cluster.admin.drained == ["p2"]
        cluster.admin.failure = NotFound("there is no proxy 'p9'", reason="no_such_proxy")
        url = f"{server.url}holdfast/v1/proxies/p9/drain"
        async with http.post(url, headers=bearer("t")) as answer:
            assert (answer.status, (await answer.json())["reason"]) == (404, "no_such_proxy")


# --- events ---


class Events:
    """The client's end of the stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def block(self) -> dict[str, str]:
        """The next block's fields; a comment is under an empty name, the end of it all is {}."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(15):
            while line := (await self.response.content.readline()).decode():
                if line == "\n":
                    if fields:
                        return fields
                    continue
                name, _, value = line.rstrip("\n").partition(":")
                fields[name] = value.strip()
        return fields

    async def snapshot(self) -> dict[str, Any]:
        while True:
            block = await self.block()
            if block.get("event") == "snapshot":
                return {"number": int(block["id"]), **json.loads(block["data"])}


@asynccontextmanager
async def watching(server: EdgeServer, http: aiohttp.ClientSession) -> AsyncIterator[Events]:
    url = f"{server.url}holdfast/v1/cluster/events"
    async with http.get(url, headers=bearer("t")) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield Events(response)


async def test_a_watcher_gets_a_snapshot_at_once_and_then_what_changes(
    cluster: FakeCluster,
) -> None:
    async with served(cluster) as (server, http), watching(server, http) as events:
        first = await events.snapshot()
        assert (first["number"], first["kernels"][0]["state"]) == (1, "idle")
        # Only what differs at every look: no news.
        cluster.admin.view = overview(time="2026-01-02T03:04:09Z")
        looks = cluster.admin.looks
        await until(lambda: cluster.admin.looks > looks)
        cluster.admin.view = overview(kernels=(kernel_view(state="busy"),))
        second = await events.snapshot()
        assert (second["number"], second["kernels"][0]["state"]) == (2, "busy")


async def test_many_watchers_cost_one_look_a_second_and_none_when_they_are_gone(
    cluster: FakeCluster,
) -> None:
    feed = None
    async with served(cluster) as (server, http):
        feed = server.app[routes.FEED]
        async with watching(server, http) as one, watching(server, http) as other:
            for events in (one, other):
                assert (await events.snapshot())["number"] == 1
            assert cluster.admin.looks == 1
            async with watching(server, http) as late:
                assert (await late.snapshot())["number"] == 1, "the present one, at once"
        await until(lambda: "0 subscribers" in repr(feed) and feed._task is None)


async def test_too_many_watchers_are_sent_elsewhere(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_proxy.edge.admin.feed.MOST_SUBSCRIBERS", 1)
    async with served(cluster) as (server, http), watching(server, http) as events:
        await events.snapshot()
        status, body = await ask(server, http, "cluster/events")
        assert (status, "another one" in body["message"]) == (503, True)


async def test_the_stream_says_that_it_lives(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT_SECONDS", 0.05)
    async with served(cluster) as (server, http), watching(server, http) as events:
        await events.snapshot()
        assert await events.block() == {"": "alive"}


async def test_a_failing_look_does_not_end_the_stream(cluster: FakeCluster) -> None:
    cluster.admin.failure = Unavailable("not yet")
    async with served(cluster) as (server, http), watching(server, http) as events:
        await until(lambda: cluster.admin.looks > 0)
        cluster.admin.failure = None
        assert (await events.snapshot())["number"] == 1


async def test_a_drain_ends_the_stream_with_a_word(cluster: FakeCluster) -> None:
    async with served(cluster) as (server, http), watching(server, http) as events:
        await events.snapshot()
        await drain(server.edge)
        assert await events.block() == {"event": "bye", "data": '{"reason":"drain"}'}
        assert await events.block() == {}, "and the response is complete"
