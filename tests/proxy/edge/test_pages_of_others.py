"""What a page of another origin may do: nothing, unless the configuration says so."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from holdfast_proxy.config import ConfigError, ProxyConfig, Secret, parse_config
from support.edge_server import AUTH, TOKEN, serve_edge
from support.fake_cluster import FakeCluster

LAB = "https://lab.example:8443"
OPEN = ProxyConfig(
    token=Secret(TOKEN),
    base_url="/gw/",
    allow_origin=(LAB,),
    allow_credentials=True,
    allow_headers=("X-Trace",),
    expose_headers=("X-Id",),
    preflight_max_age=5,
)


async def test_an_allowed_page_asks_first_and_then_asks(cluster: FakeCluster) -> None:
    async with serve_edge(cluster, config=OPEN) as server, aiohttp.ClientSession() as session:
        url = f"{server.url}api/sessions"
        asked = {"Origin": LAB, "Access-Control-Request-Method": "PATCH"}
        async with session.options(url, headers=asked) as answer:  # a browser sends no token here
            assert answer.status == 204
            headers = answer.headers
            assert headers["Access-Control-Allow-Origin"] == LAB
            assert headers["Access-Control-Allow-Credentials"] == "true"
            assert "PATCH" in headers["Access-Control-Allow-Methods"].split(", ")
            sent = headers["Access-Control-Allow-Headers"].split(", ")
            assert {"Authorization", "Content-Type", "X-Trace"} <= set(sent)
            assert headers["Access-Control-Max-Age"] == "5"
        async with session.get(url, headers={**AUTH, "Origin": LAB}) as answer:
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == LAB
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"Location", "Retry-After", "X-Id"} == set(exposed)
            assert "Origin" in answer.headers["Vary"]
        # An error is for that page to read as well.
        async with session.get(url, headers={"Origin": LAB}) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, LAB)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://lab.example", "x://["])
async def test_no_other_page_may(cluster: FakeCluster, origin: str) -> None:
    async with serve_edge(cluster, config=OPEN) as server, aiohttp.ClientSession() as session:
        url, headers = f"{server.url}api/kernels", {**AUTH, "Origin": origin}
        for ask in (session.options, session.get, session.post):
            async with ask(url, headers=headers) as answer:
                assert answer.status == 403
                assert "Access-Control-Allow-Origin" not in answer.headers
        assert cluster.starts == []


async def test_by_default_no_page_is_told_that_it_may(cluster: FakeCluster) -> None:
    async with (
        serve_edge(cluster) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}api/kernels", headers=AUTH) as answer,
    ):
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('allow_origin = ["*"]\nallow_credentials = true', "every page"),
        ('allow_origin = ["lab.example"]', "no origin"),
        ('allow_origin = ["https://lab.example/path"]', "no origin"),
        ('allow_headers = ["X Trace"]', "no header's name"),
        ('expose_headers = ["X-A\\r\\nSet-Cookie"]', "no header's name"),
        ("preflight_max_age = -1", "preflight_max_age"),
        ('base_url = "/a b/"', "base_url"),
        ('base_url = "/a/../b/"', "base_url"),
        ('base_url = "//evil.example/"', "base_url"),
        ('base_url = "/{x}/"', "base_url"),
    ],
)
def test_settings_that_would_be_a_hole(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config(toml, base=tmp_path)
