"""The OpenAPI document and its page: the table is the truth about the app's routes."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import aiohttp
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from holdfast_proxy.config import ProxyConfig, Secret
from holdfast_proxy.edge.app import build_app
from holdfast_proxy.edge.reference.calls import CALLS
from holdfast_proxy.edge.reference.document import openapi
from support.edge_server import serve_edge
from support.fake_cluster import FakeCluster

#: What is for proxies, launchers, administrators, scrapers and the pages themselves, by prefix.
_OTHERS = (
    *("holdfast/v1/launchers", "holdfast/v1/cluster", "holdfast/v1/checks", "holdfast/v1/prox"),
    *("cluster", "metrics", "api/docs", "api/openapi.json"),
)


@pytest.mark.parametrize("base", ["/", "/gw/"])
def test_the_document_is_sound(base: str) -> None:
    document = openapi(base, version="1.2.3")
    OpenAPIV31SpecValidator(document).validate()
    assert document["servers"] == [{"url": base.rstrip("/") or "/"}]


def test_the_document_has_every_route_and_no_other() -> None:
    app = build_app(FakeCluster(), ProxyConfig(base_url="/gw/", token=Secret("t")))
    registered = set()
    for route in app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        below = path.removeprefix("/gw/")
        if path.startswith("/gw/") and not below.startswith(_OTHERS) and below != "api/":
            registered.add((route.method.lower(), "/" + re.sub(r"\{(\w+):[^}]*\}", r"{\1}", below)))
    documented = {
        (method, path)
        for path, operations in openapi("/gw/", version="0")["paths"].items()
        for method in operations
    }
    assert documented == registered
    assert len(documented) > 30


def test_every_name_is_used_once() -> None:
    names = [call.name for call in CALLS]
    assert len(set(names)) == len(names)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


async def test_the_page_needs_no_script_and_no_foreign_host(cluster: FakeCluster) -> None:
    config = ProxyConfig(token=Secret("t"), base_url="/gw/")
    async with serve_edge(cluster, config=config) as server, aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}api/docs") as answer:  # no token: nothing secret
            assert (answer.status, answer.content_type) == (200, "text/html")
            policy, text = answer.headers["Content-Security-Policy"], await answer.text()
        assert policy.startswith("default-src 'none'; style-src 'self'")
        page = _Page()
        page.feed(text)
        assert not {tag for tag, _ in page.tags} & {"script", "style", "iframe", "img", "form"}
        assert not [attrs for _, attrs in page.tags if "style" in attrs]
        links = {attrs["href"] for _, attrs in page.tags if attrs.get("href")}
        assert links == {"/gw/api/docs/reference.css", "/gw/api/openapi.json"}
        for link in links:
            async with session.get(f"http://127.0.0.1:{server.port}{link}") as answer:
                assert answer.status == 200, link
        for call in CALLS:
            assert f'id="{call.name}"' in text
        async with session.get(f"{server.url}api/openapi.json") as answer:
            assert await answer.json() == openapi(
                "/gw/", version=(await answer.json())["info"]["version"]
            )
