"""Who sees the page and its data; sign-in, sign-out and what else goes over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

import holdfast_proxy.page as page_package
from holdfast_proxy.config import ProxyConfig, Secret, UserConfig
from holdfast_proxy.edge.admin.access import require_admin
from holdfast_proxy.edge.auth import Authenticator
from holdfast_proxy.edge.drain import drain
from holdfast_proxy.errors import ProxyError, Unavailable
from holdfast_proxy.page import PageRoutes, stream
from holdfast_proxy.page.sessions import LIFETIME
from support.edge_server import AUTH, TOKEN, EdgeServer, serve_edge, until
from support.fake_cluster import FakeCluster
from support.scripted_cluster import quiet_day

USERS = (
    UserConfig(name="ann", token=Secret("ann-token")),
    UserConfig(name="bob", token=Secret("bob-token")),
)
MANY = ProxyConfig(users=USERS, admins=("ann",), cluster_key=Secret("cluster-key"))
DATA = ("/snapshot", "/events")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str
    cookies: SimpleCookie = field(repr=False)

    def cookie(self) -> str:
        """``name=value`` of the one cookie that was set."""
        (morsel,) = self.cookies.values()
        return f"{morsel.key}={morsel.value}"


async def ask(url: str | URL, method: str = "GET", **options: Any) -> Answer:
    """One request without a cookie jar; redirects are not followed."""
    jar = aiohttp.DummyCookieJar()
    async with (
        aiohttp.ClientSession(cookie_jar=jar) as client,
        client.request(method, url, allow_redirects=False, **options) as answer,
    ):
        headers = {name.lower(): value for name, value in answer.headers.items()}
        body = "" if "event-stream" in answer.content_type else await answer.text()
        return Answer(answer.status, headers, body, answer.cookies)


async def sign_in(edge: EdgeServer, token: str = TOKEN, **headers: str) -> Answer:
    url = f"{edge.url}cluster/sign-in"
    return await ask(
        url, "POST", data={"token": token}, headers={"Origin": edge_origin(edge)} | headers
    )


def edge_origin(edge: EdgeServer) -> str:
    return f"http://127.0.0.1:{edge.port}"


# --- sign-in ---


async def test_without_a_credential_there_is_the_form_and_no_data(edge: EdgeServer) -> None:
    page = await ask(f"{edge.url}cluster")
    assert page.status == 401
    assert '<form method="post" action="/cluster/sign-in">' in page.text
    assert "main.js" not in page.text
    for path in DATA:
        answer = await ask(f"{edge.url}cluster{path}")
        assert (answer.status, json.loads(answer.text)["reason"]) == (401, "unauthorized")


async def test_a_right_token_opens_the_page_and_its_data(edge: EdgeServer) -> None:
    answer = await sign_in(edge, f"  {TOKEN}\n")
    assert (answer.status, answer.headers["location"]) == (303, "/cluster")
    (morsel,) = answer.cookies.values()
    assert morsel["httponly"]
    assert morsel["samesite"] == "Strict"
    assert morsel["path"] == "/cluster"
    assert int(morsel["max-age"]) == LIFETIME
    assert not morsel["secure"]
    assert TOKEN not in morsel.value
    cookie = {"Cookie": answer.cookie()}
    page = await ask(f"{edge.url}cluster", headers=cookie)
    assert page.status == 200
    assert "main.js" in page.text
    assert "Sign out" in page.text
    snapshot = await ask(f"{edge.url}cluster/snapshot", headers=cookie)
    assert json.loads(snapshot.text)["cluster"] == "research"


async def test_the_cookie_opens_nothing_else(edge: EdgeServer) -> None:
    cookie = {"Cookie": (await sign_in(edge)).cookie()}
    for path in ("api/kernels", "api/status", "holdfast/v1/cluster", "holdfast/v1/cluster/events"):
        assert (await ask(f"{edge.url}{path}", headers=cookie)).status == 401, path
    drained = await ask(f"{edge.url}holdfast/v1/proxies/proxy-1/drain", "POST", headers=cookie)
    assert drained.status == 401


async def test_another_proxy_of_the_cluster_takes_the_cookie_and_another_cluster_does_not(
    edge: EdgeServer, story: FakeCluster
) -> None:
    cookie = {"Cookie": (await sign_in(edge)).cookie()}
    for cluster, status in (("research", 200), ("staging", 401)):
        config = ProxyConfig(
            token=Secret(TOKEN),
            single_user=True,
            cluster_key=Secret("cluster-key"),
            cluster=cluster,
        )
        async with serve_edge(story, config=config) as other:
            assert (await ask(f"{other.url}cluster/snapshot", headers=cookie)).status == status


async def test_a_wrong_token_is_told_so_and_ten_of_them_wait(edge: EdgeServer) -> None:
    for _ in range(10):
        answer = await sign_in(edge, "wrong")
        assert answer.status == 401
        assert not answer.cookies
    assert "not one of this cluster" in answer.text
    assert "wrong" not in re.sub(r"<[^>]*>", "", answer.text)
    for token in ("wrong", TOKEN):  # also the right one: a wait that tells would be none
        answer = await sign_in(edge, token)
        assert answer.status == 429
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert not answer.cookies


@pytest.mark.parametrize(
    "body",
    [
        {"data": b"token=" + TOKEN.encode(), "headers": {"Content-Type": "text/plain"}},
        {"json": {"token": TOKEN}},
    ],
    ids=["plain text", "json"],
)
async def test_only_a_plain_form_signs_in(edge: EdgeServer, body: dict[str, Any]) -> None:
    answer = await ask(f"{edge.url}cluster/sign-in", "POST", **body)
    assert answer.status == 400
    assert not answer.cookies


@pytest.mark.parametrize("data", [{}, {"token": ""}, {"token": "x" * 100_000}, {"name": TOKEN}])
async def test_a_form_without_a_token_is_a_wrong_token(
    edge: EdgeServer, data: dict[str, str]
) -> None:
    answer = await ask(f"{edge.url}cluster/sign-in", "POST", data=data)
    assert answer.status in (400, 401)
    assert not answer.cookies


@pytest.mark.parametrize(
    ("data", "charset"),
    [
        (b"token=\xff\xfe", "utf-8"),
        (b"token=x", "no-such-charset"),
        (b"a&" * 500_000, "utf-8"),  # half a second of nothing else, from anybody
    ],
    ids=["no UTF-8", "unknown charset", "too large"],
)
async def test_a_form_that_cannot_be_read_is_the_senders_fault(
    edge: EdgeServer, data: bytes, charset: str
) -> None:
    headers = {"Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}
    answer = await ask(f"{edge.url}cluster/sign-in", "POST", data=data, headers=headers)
    assert answer.status == 400
    assert not answer.cookies


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_page_cannot_sign_anybody_in_or_out(
    edge: EdgeServer, path: str, headers: dict[str, str]
) -> None:
    answer = await ask(f"{edge.url}cluster{path}", "POST", data={"token": TOKEN}, headers=headers)
    assert answer.status == 403
    assert not answer.cookies


async def test_another_page_cannot_read_with_the_cookie(edge: EdgeServer) -> None:
    cookie = (await sign_in(edge)).cookie()
    for path in ("", *DATA):
        headers = {"Cookie": cookie, "Origin": "http://127.0.0.1:1"}
        answer = await ask(f"{edge.url}cluster{path}", headers=headers)
        assert answer.status == 403, path
        assert "access-control-allow-origin" not in answer.headers


async def test_behind_tls_the_cookie_is_for_tls_only(edge: EdgeServer) -> None:
    # What a browser sends that reaches the proxy through one which ends TLS and keeps the Host.
    answer = await sign_in(edge, Origin=f"https://127.0.0.1:{edge.port}")
    (morsel,) = answer.cookies.values()
    assert morsel["secure"]


async def test_sign_out_takes_the_cookie_away(edge: EdgeServer) -> None:
    answer = await ask(f"{edge.url}cluster/sign-out", "POST")
    (morsel,) = answer.cookies.values()
    assert (answer.status, morsel.value, morsel["max-age"]) == (303, "", "0")
    assert morsel["path"] == "/cluster"


async def test_a_script_uses_its_token_in_a_header_and_nobody_one_in_a_url(
    edge: EdgeServer,
) -> None:
    page = await ask(f"{edge.url}cluster", headers=AUTH)
    assert page.status == 200
    assert re.search(r'action="/cluster/sign-out" hidden', page.text)
    assert (await ask(f"{edge.url}cluster/snapshot", headers=AUTH)).status == 200
    assert (await ask(f"{edge.url}cluster/snapshot?token={TOKEN}")).status == 401
    wrong = {"Authorization": "token wrong", "Cookie": (await sign_in(edge)).cookie()}
    assert (await ask(f"{edge.url}cluster/snapshot", headers=wrong)).status == 401


async def test_only_admins_see_it(story: FakeCluster) -> None:
    async with serve_edge(story, config=MANY) as edge:
        assert (await sign_in(edge, "ann-token")).status == 303
        refused = await sign_in(edge, "bob-token")
        assert refused.status == 403
        assert "only administrators" in refused.text
        assert not refused.cookies
        bob = {"Authorization": "token bob-token"}
        assert (await ask(f"{edge.url}cluster", headers=bob)).status == 403
        for path in DATA:
            assert (await ask(f"{edge.url}cluster{path}", headers=bob)).status == 403


async def test_who_is_no_admin_any_more_loses_an_open_session(story: FakeCluster) -> None:
    async with serve_edge(story, config=MANY) as edge:
        cookie = {"Cookie": (await sign_in(edge, "ann-token")).cookie()}
    demoted = ProxyConfig(users=USERS, admins=("bob",), cluster_key=Secret("cluster-key"))
    async with serve_edge(story, config=demoted) as edge:
        assert (await ask(f"{edge.url}cluster/snapshot", headers=cookie)).status == 403


async def test_a_proxy_without_tokens_has_no_form_and_answers_this_machine_only(
    story: FakeCluster,
) -> None:
    config = ProxyConfig(single_user=True, cluster_key=Secret("k"))
    async with serve_edge(story, config=config) as edge:
        page = await ask(f"{edge.url}cluster")
        assert page.status == 200
        assert "main.js" in page.text
        foreign = await ask(f"{edge.url}cluster/snapshot", headers={"Host": "evil.example"})
        assert foreign.status == 403
        assert (await sign_in(edge, "anything")).status == 303


async def test_a_base_path_is_everywhere(story: FakeCluster) -> None:
    config = ProxyConfig(
        token=Secret(TOKEN), single_user=True, base_url="/hub/", cluster_key=Secret("k")
    )
    async with serve_edge(story, config=config) as edge:
        form = await ask(f"{edge.url}cluster")
        assert 'action="/hub/cluster/sign-in"' in form.text
        answer = await sign_in(edge)
        assert answer.headers["location"] == "/hub/cluster"
        (morsel,) = answer.cookies.values()
        assert morsel["path"] == "/hub/cluster"
        page = await ask(f"{edge.url}cluster", headers={"Cookie": answer.cookie()})
        for link in re.findall(r'(?:src|href)="(/[^"]*)"', page.text):
            assert (await ask(f"{edge_origin(edge)}{link}")).status == 200, link


# --- files ---


async def test_the_policy_allows_nothing_but_our_own_files(edge: EdgeServer) -> None:
    cookie = {"Cookie": (await sign_in(edge)).cookie()}
    for answer in (
        await ask(f"{edge.url}cluster"),
        await ask(f"{edge.url}cluster", headers=cookie),
        await ask(f"{edge.url}cluster/static/main.js"),
        await sign_in(edge, "wrong"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
    assert (await ask(f"{edge.url}cluster", headers=cookie)).headers["cache-control"] == "no-store"


async def test_a_file_is_fetched_once(edge: EdgeServer) -> None:
    first = await ask(f"{edge.url}cluster/static/page.css")
    assert (first.status, first.headers["content-type"]) == (200, "text/css; charset=utf-8")
    again = {"If-None-Match": first.headers["etag"]}
    assert (await ask(f"{edge.url}cluster/static/page.css", headers=again)).status == 304
    stale = {"If-None-Match": '"another"'}
    assert (await ask(f"{edge.url}cluster/static/page.css", headers=stale)).status == 200


@pytest.mark.parametrize(
    "name", ["cluster.html", "sign-in.html", "..%2froutes.py", "nothing.js", "%2e%2e", "main.js%00"]
)
async def test_no_other_file_is_served(edge: EdgeServer, name: str) -> None:
    answer = await ask(URL(f"{edge.url}cluster/static/{name}", encoded=True))
    assert answer.status == 404


def test_the_files_ask_nobody_else_and_make_no_markup_of_data() -> None:
    folder = Path(page_package.__file__).parent / "static"
    names = {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        text = path.read_text()
        outside = set(re.findall(r"(?:https?:)?//[a-z0-9.]+\.[a-z]{2,}", text))
        assert outside <= {"http://www.w3.org"}, path.name
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert imported in names
        if path.suffix == ".js":
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
            assert len(text.splitlines()) < 400
        if path.suffix == ".html":
            assert not re.search(r"\son[a-z]+=|style=|<style|<script(?! type=\"module\" src)", text)


# --- live data ---


class EventReader:
    """Server-sent events as they come."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def next(self, *kinds: str) -> tuple[str, Any]:
        """The next event of one of these kinds; EOFError at the end."""
        while True:
            kind, data = "message", ""
            while line := (await self._answer.content.readline()).decode():
                if line == "\n":
                    break
                name, _, value = line.rstrip("\n").partition(": ")
                kind, data = (value, data) if name == "event" else (kind, value)
            if not line:
                raise EOFError
            if kind in kinds:
                return kind, json.loads(data)


@asynccontextmanager
async def reading(edge: EdgeServer, cookie: str) -> AsyncIterator[EventReader]:
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client,
        client.get(f"{edge.url}cluster/events", headers={"Cookie": cookie}) as answer,
    ):
        assert answer.content_type == "text/event-stream"
        async with asyncio.timeout(20):
            yield EventReader(answer)


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BEAT_SECONDS", 0.2)


@pytest.mark.usefixtures("quick_beats")
async def test_a_change_comes_at_once_and_beats_come_when_nothing_changes(
    edge: EdgeServer, story: FakeCluster
) -> None:
    async with reading(edge, (await sign_in(edge)).cookie()) as events:
        _, first = await events.next("snapshot")
        assert len(first["kernels"]) == 6
        story.admin.view = quiet_day(kernels=7)
        _, second = await events.next("snapshot")
        assert len(second["kernels"]) == 7
        while (beat := (await events.next("beat"))[1])["time"] <= second["time"]:
            pass
        assert set(beat["last_seen"]) == {"node-1", "node-2"}
        assert beat["lease_age"] == 0.5


@pytest.mark.usefixtures("quick_beats")
async def test_a_proxy_that_cannot_look_says_so(edge: EdgeServer, story: FakeCluster) -> None:
    async with reading(edge, (await sign_in(edge)).cookie()) as events:
        await events.next("snapshot")
        story.admin.failure = Unavailable("this proxy has not read the cluster yet")
        _, why = await events.next("stale")
        assert why == {"message": "this proxy has not read the cluster yet"}


async def test_a_drain_ends_the_stream_in_order(edge: EdgeServer) -> None:
    async with reading(edge, (await sign_in(edge)).cookie()) as events:
        await events.next("snapshot")
        await drain(edge.edge)
        await events.next("bye")
        with pytest.raises(EOFError):
            await events.next("bye")


async def test_a_stream_does_not_outlive_its_session(story: FakeCluster) -> None:
    """With a clock that jumps to one second before the session's end."""
    wall = time.time()
    config = ProxyConfig(token=Secret(TOKEN), single_user=True, cluster_key=Secret("k"))
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            await until(lambda: request.transport is None, 10)
            return response
        finally:
            ended.set()

    @web.middleware
    async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ProxyError as error:
            return web.Response(status=error.status)

    def moment() -> float:
        return wall

    routes = PageRoutes(
        config,
        Authenticator(config),
        snapshot=endless,
        events=endless,
        allow=lambda identity: require_admin(identity, config),
        clock=moment,
    )
    app = web.Application(middlewares=[refusals])
    app.add_routes(routes.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        base = f"http://127.0.0.1:{port}/cluster"
        cookie = (await ask(f"{base}/sign-in", "POST", data={"token": TOKEN})).cookie()
        wall += LIFETIME - 1.5
        began = time.monotonic()
        async with aiohttp.ClientSession() as client, asyncio.timeout(10):
            answer = await client.get(f"{base}/events", headers={"Cookie": cookie})
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        assert time.monotonic() - began >= 0.4
        async with asyncio.timeout(10):
            await ended.wait()
        wall += 2
        assert (await ask(f"{base}/events", headers={"Cookie": cookie})).status == 401
    finally:
        await runner.cleanup()
