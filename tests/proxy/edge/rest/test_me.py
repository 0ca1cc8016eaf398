"""``/api/me``: who asks, and what they may do."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from support.edge_server import AUTH, serve_edge
from support.fake_cluster import FakeCluster


async def ask(cluster: FakeCluster, permissions: str | None) -> tuple[int, Any]:
    params = {} if permissions is None else {"permissions": permissions}
    async with (
        serve_edge(cluster) as server,
        aiohttp.ClientSession(headers=AUTH) as session,
        session.get(f"{server.url}api/me", params=params) as answer,
    ):
        return answer.status, await answer.json()


async def test_a_user_is_known_by_name(cluster: FakeCluster) -> None:
    status, body = await ask(cluster, None)
    assert status == 200
    assert body["identity"]["username"] == body["identity"]["display_name"] == "jovyan"
    assert body["permissions"] == {}


async def test_permissions_are_those_that_were_asked_for(cluster: FakeCluster) -> None:
    asked = {"kernels": ["execute", "fly"], "sessions": ["write"], "contents": ["read"]}
    _, body = await ask(cluster, json.dumps(asked))
    granted = {"kernels": ["execute"], "sessions": ["write"], "contents": []}
    assert body["permissions"] == granted


@pytest.mark.parametrize("text", ["{", "[]", '{"kernels": "read"}', '{"kernels": [1]}', "[" * 2000])
async def test_what_is_no_permission_is_400(cluster: FakeCluster, text: str) -> None:
    assert (await ask(cluster, text))[0] == 400
