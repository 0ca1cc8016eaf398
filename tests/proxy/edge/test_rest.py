"""The REST calls of Jupyter's gateway client, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from holdfast_proxy.cluster import Readiness
from holdfast_proxy.config import ConfigError, ProxyConfig, Secret
from holdfast_proxy.edge.app import build_app
from holdfast_proxy.edge.arrival import ArrivalClock, boottime
from holdfast_proxy.errors import (
    Conflict,
    Misdirected,
    ProxyError,
    StaleToken,
    StartFailed,
    Unavailable,
)
from support.edge_server import AUTH, TOKEN, EdgeServer, serve_edge
from support.fake_cluster import ACTIVITY, FakeCluster

KERNEL = "11111111-1111-4111-8111-111111111111"


@dataclass
class Api:
    """Asks the server, with the token unless told otherwise."""

    server: EdgeServer
    session: aiohttp.ClientSession

    @property
    def cluster(self) -> FakeCluster:
        return self.server.cluster

    async def ask(
        self, method: str, path: str, **options: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        options.setdefault("headers", {})
        options["headers"] = {**AUTH, **options["headers"]}
        url = self.server.url + path
        async with self.session.request(method, url, allow_redirects=False, **options) as answer:
            body = await answer.read()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(body) if is_json and body else body, answer


@pytest.fixture
async def api(cluster: FakeCluster) -> AsyncIterator[Api]:
    config = ProxyConfig(
        token=Secret(TOKEN),
        cluster_key=Secret("cluster-key"),
        env_whitelist=("TEAM",),
        base_url="/gw/",
    )
    cluster.specs = {
        "default": "python3",
        "kernelspecs": {
            "python3": {
                "name": "python3",
                "spec": {"display_name": "Python 3", "language": "python"},
                "resources": {
                    "logo-svg": "/kernelspecs/python3/logo-svg.svg",
                    "kernel.js": "/opt/jupyter/kernels/python3/kernel.js",
                },
            }
        },
    }
    cluster.resources["python3", "logo-svg.svg"] = (b"<svg/>", "image/svg+xml")
    async with serve_edge(cluster, config=config) as server, aiohttp.ClientSession() as session:
        yield Api(server, session)


async def test_a_kernels_life(api: Api) -> None:
    status, model, answer = await api.ask(
        "POST", "api/kernels", json={"name": "python3", "path": "a/b.ipynb", "env": {}}
    )
    assert status == 201
    assert answer.headers["Location"] == f"/gw/api/kernels/{model['id']}"
    assert set(model) == {"id", "name", "last_activity", "execution_state", "connections"}
    datetime.strptime(model["last_activity"], "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007  (as jupyter_server does)
    assert (await api.ask("GET", "api/kernels"))[1] == [model]
    assert (await api.ask("GET", f"api/kernels/{model['id']}"))[1] == model
    # jupyter_server sends {} as the body of these two.
    assert (await api.ask("POST", f"api/kernels/{model['id']}/interrupt", json={}))[0] == 204
    status, restarted, _ = await api.ask("POST", f"api/kernels/{model['id']}/restart", json={})
    assert (status, restarted) == (200, model)
    assert (await api.ask("DELETE", f"api/kernels/{model['id']}"))[0] == 204
    assert [what for what, _, _ in api.cluster.calls] == ["interrupt", "restart", "delete"]
    assert (await api.ask("GET", f"api/kernels/{model['id']}"))[0] == 404


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b" "])
async def test_a_start_needs_no_body(api: Api, body: bytes) -> None:
    assert (await api.ask("POST", "api/kernels", data=body))[0] == 201
    assert api.cluster.starts[0].spec_name is None
    assert api.cluster.starts[0].user == "jovyan"


async def test_a_starts_environment_and_id(api: Api) -> None:
    env = {
        "KERNEL_ID": KERNEL.upper(),
        "KERNEL_USERNAME": "root",
        "KERNEL_WORKING_DIR": "/home/a",
        "TEAM": "blue",
        "OTHER": "dropped",
    }
    status, model, _ = await api.ask(
        "POST",
        "api/kernels",
        json={"name": "r", "env": env},
        headers={"Holdfast-Request": "start-1"},
    )
    assert status == 201
    assert model["id"] == KERNEL
    (start,) = api.cluster.starts
    assert start.kernel_id == KERNEL
    assert start.request_id == "start-1"
    assert dict(start.env) == {
        "KERNEL_USERNAME": "jovyan",
        "KERNEL_WORKING_DIR": "/home/a",
        "TEAM": "blue",
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b'"x"', "JSON object"),
        (b'{"name": 3}', "name"),
        (b'{"name": ""}', "name"),
        (b'{"path": []}', "path"),
        (b'{"path": "a\\u0000b"}', "path"),
        (b'{"env": []}', "env"),
        (b'{"env": ["a"]}', "env"),
        (b'{"env": {"KERNEL_ID": "1"}}', "UUID"),
        (b'{"env": {"KERNEL_ID": 7}}', "UUID"),
        (b'{"env": {"KERNEL_X": 7}}', "KERNEL_X"),
        (b'{"env": {"KERNEL_X": "a\\u0000"}}', "NUL"),
        (b'{"env": {"KERNEL X": "a"}}', "not the name"),
        (b'{"env": {"KERNEL_X=Y": "a"}}', "not the name"),
        (json.dumps({"env": {"KERNEL_X": "x" * 4097}}).encode(), "4096"),
        (json.dumps({"env": {f"KERNEL_{n}": "" for n in range(257)}}).encode(), "256"),
    ],
)
async def test_a_start_that_makes_no_sense_is_400(api: Api, body: bytes, words: str) -> None:
    status, error, _ = await api.ask("POST", "api/kernels", data=body)
    assert status == 400
    assert words in error["message"]
    assert error["reason"] in ("bad_json", "bad_request")
    assert api.cluster.starts == []


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "ENV",
     "IFS", "BASH_FUNC_x", "DYLD_INSERT_LIBRARIES", "NODE_OPTIONS", "PERL5OPT"],
)  # fmt: skip
async def test_variables_that_decide_what_runs_are_refused(api: Api, name: str) -> None:
    status, error, _ = await api.ask("POST", "api/kernels", json={"env": {name: "secret-value"}})
    assert status == 400
    assert name in error["message"]
    assert "secret-value" not in error["message"]


def test_no_configuration_can_let_them_through() -> None:
    with pytest.raises(ConfigError, match="LD_PRELOAD"):
        build_app(FakeCluster(), ProxyConfig(env_whitelist=("TEAM", "LD_PRELOAD")))


@pytest.mark.parametrize(
    ("error", "status", "reason", "retry_after"),
    [
        (Unavailable("wait", retry_after=0.2), 503, "unavailable", "1"),
        (Unavailable("wait", retry_after=30), 503, "unavailable", "30"),
        (Conflict("no", reason="nonce_mismatch"), 409, "nonce_mismatch", None),
        (StaleToken("behind", reason="stale_token"), 409, "stale_token", None),
        (StartFailed("ModuleNotFoundError: x"), 500, "start_failed", None),
        (Misdirected("not mine", owner="p2"), 421, "misdirected", None),
        (RuntimeError("a bug"), 503, "unavailable", "1"),
        (TimeoutError(), 503, "unavailable", "1"),
        (ConnectionResetError(), 503, "unavailable", "1"),
    ],
)
async def test_errors_have_the_status_that_jupyter_can_bear(
    api: Api, error: ProxyError | Exception, status: int, reason: str, retry_after: str | None
) -> None:
    api.cluster.fail["start"] = error
    found, body, answer = await api.ask("POST", "api/kernels", json={})
    assert (found, body["reason"]) == (status, reason)
    assert answer.headers.get("Retry-After") == retry_after
    assert body["message"]
    assert body.get("owner") == ("p2" if status == 421 else None)


async def test_a_list_is_whole_or_503(api: Api) -> None:
    api.cluster.add(KERNEL)
    api.cluster.fail["list"] = Unavailable("not in sync")
    assert (await api.ask("GET", "api/kernels"))[0] == 503


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "api/kernels/not-a-uuid", 404),
        ("DELETE", f"api/kernels/{KERNEL}", 404),
        ("POST", f"api/kernels/{KERNEL}/restart", 404),
        ("PUT", "api/kernels", 405),
        ("GET", "api/nothing", 404),
        ("GET", "api/kernelspecs/julia", 404),
        ("GET", f"api/kernels/{KERNEL}/channels", 400),
    ],
)
async def test_errors_are_json_everywhere(api: Api, method: str, path: str, status: int) -> None:
    found, body, _ = await api.ask(method, path)
    assert found == status
    assert set(body) == {"reason", "message"}


async def test_an_oversized_body_is_413(api: Api) -> None:
    status, body, _ = await api.ask("POST", "api/kernels", data=b" " * (3 << 20))
    assert status == 413
    assert set(body) == {"reason", "message"}


async def test_kernelspecs_have_our_paths(api: Api) -> None:
    _, specs, _ = await api.ask("GET", "api/kernelspecs")
    assert specs["default"] == "python3"
    resources = specs["kernelspecs"]["python3"]["resources"]
    assert resources == {
        "logo-svg": "/gw/kernelspecs/python3/logo-svg.svg",
        "kernel.js": "/gw/kernelspecs/python3/kernel.js",
    }
    status, spec, _ = await api.ask("GET", "api/kernelspecs/python3")
    assert (status, spec) == (200, specs["kernelspecs"]["python3"])


async def test_resources_by_get_and_head(api: Api) -> None:
    status, body, answer = await api.ask("GET", "kernelspecs/python3/logo-svg.svg")
    assert (status, body, answer.content_type) == (200, b"<svg/>", "image/svg+xml")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    status, body, answer = await api.ask("HEAD", "kernelspecs/python3/logo-svg.svg")
    assert (status, body, answer.headers["Content-Length"]) == (200, b"", "6")


@pytest.mark.parametrize(
    "path", ["kernel.json", "sub/kernel.json", "%2e%2e/secret", "a/..%2f..%2fb", "none.png"]
)
async def test_resources_that_are_not_served(api: Api, path: str) -> None:
    api.cluster.resources["python3", "kernel.json"] = (b"{}", "application/json")
    assert (await api.ask("GET", f"kernelspecs/python3/{path}"))[0] == 404


async def test_api_version_and_status(api: Api) -> None:
    api.cluster.add(KERNEL)
    assert "version" in (await api.ask("GET", "api"))[1]
    _, status, _ = await api.ask("GET", "api/status")
    assert (status["kernels"], status["connections"]) == (1, 0)
    assert status["last_activity"] == ACTIVITY


@pytest.mark.parametrize(
    ("state", "status", "word"),
    [
        (Readiness.READY, 200, "ready"),
        (Readiness.DEGRADED, 200, "degraded"),
        (Readiness.NOT_READY, 503, "not ready"),
    ],
)
async def test_health_needs_no_token(api: Api, state: Readiness, status: int, word: str) -> None:
    api.cluster.state = (state, "because")
    root = f"http://127.0.0.1:{api.server.port}"
    for base in (root, f"{root}/gw"):
        async with api.session.get(f"{base}/readyz") as answer:
            assert (answer.status, (await answer.json())["status"]) == (status, word)
        async with api.session.get(f"{base}/livez") as answer:
            assert answer.status == 200
    async with api.session.get(f"{root}/gw/holdfast/v1/whoami") as answer:
        body = await answer.json()
        assert (body["proxy_id"], body["boot_id"]) == ("p1", "boot-p1")


async def test_a_heartbeat_that_lay_in_a_frozen_proxy_is_old_news(cluster: FakeCluster) -> None:
    """It would put the launcher's former address over the one that it has now."""
    offset = 0.0
    clock = ArrivalClock(lambda: boottime() + offset)
    async with serve_edge(cluster, clock=clock) as server, aiohttp.ClientSession() as session:
        url, join = server.url + "holdfast/v1/launchers/l1", {"Authorization": "Bearer join"}
        offset = 30.0
        async with session.post(url, json={"counter": 1}, headers=join) as answer:
            assert answer.status == 503
        assert cluster.heartbeats == []


async def test_endpoints_are_for_clients(api: Api) -> None:
    _, body, _ = await api.ask("GET", "holdfast/v1/endpoints")
    assert body["self"] == "p1"
    assert {"id": "p2", "url": "http://x:2"} in body["proxies"]
    async with api.session.get(api.server.url + "holdfast/v1/endpoints") as answer:
        assert answer.status == 401


async def test_a_heartbeat_has_its_own_credential(api: Api) -> None:
    url, body = api.server.url + "holdfast/v1/launchers/l1", {"counter": 1}
    for headers, status in [
        ({}, 401),
        (AUTH, 401),
        ({"Authorization": "Bearer join"}, 200),
    ]:
        async with api.session.post(url, json=body, headers=headers) as answer:
            assert answer.status == status
    assert api.cluster.heartbeats == [("l1", body)]
    bad = api.server.url + "holdfast/v1/launchers/a%20b"
    async with api.session.post(bad, json=body, headers=headers) as answer:
        assert answer.status == 400
