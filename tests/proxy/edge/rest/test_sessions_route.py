"""``/api/sessions`` over real HTTP, with a fake cluster: flows, mistakes, other users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from holdfast_proxy.config import ProxyConfig, Secret, UserConfig
from holdfast_proxy.errors import StartFailed, Unavailable
from support.edge_server import EdgeServer, serve_edge
from support.fake_cluster import FakeCluster

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NOTEBOOK = {"path": "a/b.ipynb", "type": "notebook", "name": "b.ipynb", "kernel": {"name": "r"}}


class Api:
    def __init__(self, server: EdgeServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    @property
    def cluster(self) -> FakeCluster:
        return self.server.cluster

    async def ask(
        self, method: str, path: str, body: Any = None, *, user: str = "ann"
    ) -> tuple[int, Any]:
        url, headers = self.server.url + path, {"Authorization": f"token {user}-token"}
        async with self.session.request(method, url, json=body, headers=headers) as answer:
            text = await answer.read()
            return answer.status, await answer.json() if text else None

    async def open(self, **fields: Any) -> dict[str, Any]:
        status, model = await self.ask("POST", "api/sessions", {**NOTEBOOK, **fields})
        assert status == 201, model
        return dict(model)


@pytest.fixture
async def api(cluster: FakeCluster) -> AsyncIterator[Api]:
    users = tuple(UserConfig(name=name, token=Secret(f"{name}-token")) for name in ("ann", "bob"))
    config = ProxyConfig(users=users, base_url="/gw/")
    async with serve_edge(cluster, config=config) as server, aiohttp.ClientSession() as session:
        yield Api(server, session)


async def test_a_session_is_opened_with_its_kernel(api: Api) -> None:
    model = await api.open()
    (start,) = api.cluster.starts
    assert (start.spec_name, start.path, start.user) == ("r", "a/b.ipynb", "ann")
    assert start.kernel_id == model["kernel"]["id"]
    assert model["notebook"] == {"path": "a/b.ipynb", "name": "b.ipynb"}
    assert (await api.ask("GET", "api/sessions"))[1] == [model]
    assert (await api.ask("GET", f"api/sessions/{model['id']}"))[1] == model


async def test_the_same_path_is_the_same_session(api: Api) -> None:
    model = await api.open()
    assert await api.open(name="another name") == model
    assert len(api.cluster.starts) == 1


async def test_a_start_that_waits_is_gone_on_with(api: Api) -> None:
    """The client asks again after a 503: the same session, the same kernel id."""
    api.cluster.fail["start"] = Unavailable("the launcher is busy")
    assert (await api.ask("POST", "api/sessions", NOTEBOOK))[0] == 503
    assert (await api.ask("GET", "api/sessions"))[1] == []
    del api.cluster.fail["start"]
    model = await api.open()
    first, second = api.cluster.starts
    assert first.kernel_id == second.kernel_id == model["kernel"]["id"]


async def test_a_start_that_failed_leaves_no_session(api: Api) -> None:
    api.cluster.fail["start"] = StartFailed("ModuleNotFoundError")
    status, error = await api.ask("POST", "api/sessions", NOTEBOOK)
    assert (status, error["reason"]) == (500, "start_failed")
    assert api.cluster.shelf.sessions == {}


async def test_a_dead_kernel_is_replaced(api: Api) -> None:
    model = await api.open()
    await api.ask("DELETE", f"api/kernels/{model['kernel']['id']}")
    assert (await api.ask("GET", "api/sessions"))[1] == []
    again = await api.open()
    assert (await api.ask("GET", "api/sessions"))[1] == [again]


async def test_another_users_session_is_none(api: Api) -> None:
    model = await api.open()
    path = f"api/sessions/{model['id']}"
    assert (await api.ask("GET", "api/sessions", user="bob"))[1] == []
    assert (await api.ask("GET", path, user="bob"))[0] == 404
    assert (await api.ask("PATCH", path, {"path": "x"}, user="bob"))[0] == 404
    assert (await api.ask("DELETE", path, user="bob"))[0] == 404
    status, theirs = await api.ask("POST", "api/sessions", NOTEBOOK, user="bob")
    assert status == 201
    assert theirs["id"] != model["id"]
    assert theirs["kernel"]["id"] != model["kernel"]["id"]
    stolen = {**NOTEBOOK, "path": "x", "kernel": {"id": model["kernel"]["id"]}}
    assert (await api.ask("POST", "api/sessions", stolen, user="bob"))[0] == 400


async def test_rename_keeps_the_kernel(api: Api) -> None:
    model = await api.open()
    path = f"api/sessions/{model['id']}"
    status, renamed = await api.ask("PATCH", path, {"path": "c.ipynb", "name": "c", "type": "file"})
    assert (status, renamed["path"], renamed["name"], renamed["type"]) == (
        200,
        "c.ipynb",
        "c",
        "file",
    )
    assert (renamed["id"], renamed["kernel"]) == (model["id"], model["kernel"])
    assert "notebook" not in renamed


async def test_a_new_kernel_ends_the_old_one_unless_it_is_shared(api: Api) -> None:
    model = await api.open()
    path, old = f"api/sessions/{model['id']}", model["kernel"]["id"]
    status, changed = await api.ask("PATCH", path, {"kernel": {"name": "r"}})
    assert status == 200
    assert old not in api.cluster.kernels
    kept = changed["kernel"]["id"]
    await api.open(path="other", kernel={"id": kept})
    status, changed = await api.ask("PATCH", path, {"kernel": {"name": "r"}})
    assert (status, kept in api.cluster.kernels) == (200, True)


async def test_a_kernel_started_for_a_session_that_went_is_ended(api: Api) -> None:
    model = await api.open()
    api.cluster.hold_starts = asyncio.Event()
    changing = asyncio.create_task(
        api.ask("PATCH", f"api/sessions/{model['id']}", {"kernel": {"name": "r"}})
    )
    async with asyncio.timeout(10):
        while len(api.cluster.starts) < 2:  # noqa: ASYNC110  (a list has no event)
            await asyncio.sleep(0.005)
    assert (await api.ask("DELETE", f"api/sessions/{model['id']}"))[0] == 204
    api.cluster.hold_starts.set()
    assert (await changing)[0] == 404
    assert api.cluster.kernels == {}


async def test_close_ends_the_kernel_and_says_when_it_was_gone(api: Api) -> None:
    model = await api.open()
    path = f"api/sessions/{model['id']}"
    assert (await api.ask("DELETE", path))[0] == 204
    assert (api.cluster.kernels, api.cluster.shelf.sessions) == ({}, {})
    assert (await api.ask("DELETE", path))[0] == 404
    model = await api.open()
    del api.cluster.kernels[model["kernel"]["id"]]
    status, error = await api.ask("DELETE", f"api/sessions/{model['id']}")
    assert (status, error["reason"]) == (410, "kernel_gone")
    assert api.cluster.shelf.sessions == {}


async def test_a_list_is_whole_or_503(api: Api) -> None:
    await api.open()
    api.cluster.fail["list"] = Unavailable("not in sync")
    assert (await api.ask("GET", "api/sessions"))[0] == 503
    del api.cluster.fail["list"]
    api.cluster.shelf.fail = Unavailable("etcd is away")
    assert (await api.ask("GET", "api/sessions"))[0] == 503


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"type": "notebook"},
        {"path": "x"},
        {"path": "", "type": "notebook"},
        {"path": 7, "type": "notebook"},
        {"path": "a\0", "type": "notebook"},
        {"path": "\ud800", "type": "notebook"},
        {"path": "x" * 4097, "type": "notebook"},
        {"path": "x", "type": ["notebook"]},
        {"path": "x", "type": "notebook", "kernel": "r"},
        {"path": "x", "type": "notebook", "kernel": {"id": "not-an-id"}},
        {"path": "x", "type": "notebook", "kernel": {"id": UNKNOWN}},
        {"path": "x", "type": "notebook", "kernel": {"name": 7}},
        {"path": "x", "type": "notebook", "notebook": "y"},
    ],
)
async def test_mistakes_are_400(api: Api, body: Any) -> None:
    status, error = await api.ask("POST", "api/sessions", body)
    assert (status, set(error)) == (400, {"reason", "message"})
    assert (api.cluster.starts, api.cluster.shelf.sessions) == ([], {})


@pytest.mark.parametrize("name", ["not-an-id", UNKNOWN])
async def test_an_unknown_session_is_404(api: Api, name: str) -> None:
    assert (await api.ask("GET", f"api/sessions/{name}"))[0] == 404
    assert (await api.ask("PATCH", f"api/sessions/{name}", {"path": "x"}))[0] == 404
    assert (await api.ask("DELETE", f"api/sessions/{name}"))[0] == 404
