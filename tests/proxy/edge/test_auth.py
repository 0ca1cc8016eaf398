"""Who may ask what, as a table; REST and websockets pass the same gate."""

from __future__ import annotations

import aiohttp
import pytest

from holdfast_proxy.config import ProxyConfig, Secret, UserConfig
from holdfast_proxy.edge.auth import Authenticator, bearer, check_origin
from holdfast_proxy.errors import Forbidden, Unauthorized
from support.edge_server import serve_edge, upgrade
from support.fake_cluster import FakeCluster
from support.fake_keeper import RawKeeper

KERNEL = "11111111-1111-4111-8111-111111111111"
USERS = (
    UserConfig(name="ann", token=Secret("ann-token")),
    UserConfig(name="bob", token=Secret("bob-token")),
)
MANY = ProxyConfig(users=USERS, cluster_key=Secret("key"))
ONE = ProxyConfig(token=Secret("t"), user="jo")
OPEN = ProxyConfig()
QUERY = ProxyConfig(token=Secret("t"), user="jo", allow_token_in_query=True)
PEER = {"Holdfast-Forwarded": "p2", "Holdfast-User": "ann"}


@pytest.mark.parametrize(
    ("config", "headers", "query", "user", "forwarded_by"),
    [
        (MANY, {"Authorization": "token ann-token"}, {}, "ann", None),
        (MANY, {"Authorization": "Bearer bob-token"}, {}, "bob", None),
        (MANY, {"Authorization": "bearer  bob-token "}, {}, "bob", None),
        (MANY, {"Authorization": "Bearer key", **PEER}, {}, "ann", "p2"),
        (MANY, {"Authorization": "Bearer key", "Holdfast-Forwarded": "p2"}, {}, None, "p2"),
        (ONE, {"Authorization": "token t"}, {}, "jo", None),
        (OPEN, {}, {}, "jovyan", None),
        (OPEN, {"Authorization": "token anything"}, {}, "jovyan", None),
        (QUERY, {}, {"token": "t"}, "jo", None),
        (QUERY, {"Authorization": "token t"}, {"token": "wrong"}, "jo", None),
    ],
)
def test_who_is_let_in(
    config: ProxyConfig,
    headers: dict[str, str],
    query: dict[str, str],
    user: str | None,
    forwarded_by: str | None,
) -> None:
    identity = Authenticator(config).identify(headers, query)
    assert (identity.user, identity.forwarded_by) == (user, forwarded_by)


@pytest.mark.parametrize(
    ("config", "headers", "query"),
    [
        (MANY, {}, {}),
        (MANY, {"Authorization": "token"}, {}),
        (MANY, {"Authorization": "token "}, {}),
        (MANY, {"Authorization": "Basic ann-token"}, {}),
        (MANY, {"Authorization": "ann-token"}, {}),
        (MANY, {"Authorization": "token ann-toke"}, {}),
        (MANY, {"Authorization": "token ann-token2"}, {}),
        (MANY, {"Authorization": "token \udcff"}, {}),
        (MANY, {"Authorization": "Bearer key"}, {}),  # the cluster key alone is no user's
        (MANY, {"Authorization": "Bearer ann-token", **PEER}, {}),  # a user is no proxy
        (MANY, {**PEER}, {}),
        (ONE, {}, {"token": "t"}),  # not in a query string unless allowed
        (ONE, {"Authorization": "Bearer t", **PEER}, {}),  # no cluster key configured
        (OPEN, {"Authorization": "Bearer x", **PEER}, {}),
        (QUERY, {}, {"token": "wrong"}),
        (QUERY, {"Authorization": "token wrong"}, {"token": "t"}),  # the header decides
    ],
)
def test_who_is_not(config: ProxyConfig, headers: dict[str, str], query: dict[str, str]) -> None:
    with pytest.raises(Unauthorized) as caught:
        Authenticator(config).identify(headers, query)
    assert "ann" not in caught.value.message


def test_no_token_stays_in_memory_as_such() -> None:
    authenticator = Authenticator(MANY)
    assert "ann-token" not in repr(vars(authenticator))
    assert bearer({"Authorization": "token a b"}) == "a b"


HERE = "lab.example:8888"


@pytest.mark.parametrize(
    ("host", "origin", "allowed", "is_open", "answer"),
    [
        (HERE, None, (), False, None),
        (HERE, f"https://{HERE}", (), False, None),
        (HERE, "https://LAB.example:8888", (), False, None),
        (HERE, "https://hub.example", ("https://hub.example",), False, "https://hub.example"),
        (HERE, "https://any.example", ("*",), False, "https://any.example"),
        ("127.0.0.1:1", None, (), True, None),
        ("localhost:1", "http://localhost:1", (), True, None),
        ("[::1]:1", None, (), True, None),
    ],
)
def test_origins_that_pass(
    host: str, origin: str | None, allowed: tuple[str, ...], is_open: bool, answer: str | None
) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert check_origin(headers, allowed=allowed, is_open=is_open) == answer


@pytest.mark.parametrize(
    ("host", "origin", "allowed", "is_open"),
    [
        (HERE, "https://evil.example", (), False),
        (HERE, "https://lab.example", (), False),  # another port is another origin
        (HERE, "null", (), False),
        (HERE, "garbage", (), False),
        (HERE, "http://[", (), False),
        (HERE, "https://hub.example.evil", ("https://hub.example",), False),
        ("evil.example:1", None, (), True),  # DNS rebinding
        ("evil.example:1", "http://evil.example:1", (), True),
        ("", None, (), True),
        ("[", None, (), True),
    ],
)
def test_origins_that_do_not(
    host: str, origin: str | None, allowed: tuple[str, ...], is_open: bool
) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    with pytest.raises(Forbidden):
        check_origin(headers, allowed=allowed, is_open=is_open)


async def test_rest_and_websockets_are_judged_alike(cluster: FakeCluster) -> None:
    config = ProxyConfig(
        users=USERS, allow_token_in_query=True, allow_origin=("https://hub.example",)
    )
    async with (
        RawKeeper() as keeper,
        serve_edge(cluster, config=config) as server,
        aiohttp.ClientSession() as session,
    ):
        cluster.add(KERNEL, "ann", located=keeper.endpoint)
        table: list[tuple[dict[str, str], str, int]] = [
            ({"Authorization": "token ann-token"}, "", 200),
            ({"Authorization": "token bob-token"}, "", 404),
            ({"Authorization": "token x"}, "", 401),
            ({"Authorization": ""}, "?token=ann-token", 200),
            ({"Authorization": ""}, "?token=x", 401),
            ({"Authorization": "token ann-token", "Origin": "https://hub.example"}, "", 200),
            ({"Authorization": "token ann-token", "Origin": "https://evil.example"}, "", 403),
        ]
        for headers, query, expected in table:
            url = f"{server.url}api/kernels/{KERNEL}{query}"
            async with session.get(url, headers=headers) as answer:
                assert answer.status == expected, (headers, query)
                if expected == 401:
                    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            client = await upgrade(server, KERNEL, query=query, headers=headers)
            assert client.status == (101 if expected == 200 else expected), (headers, query)
            client.close()


async def test_the_token_of_a_query_reaches_no_keeper(cluster: FakeCluster) -> None:
    config = ProxyConfig(users=USERS, allow_token_in_query=True)
    async with RawKeeper() as keeper, serve_edge(cluster, config=config) as server:
        cluster.add(KERNEL, "ann", located=keeper.endpoint)
        client = await upgrade(
            server, KERNEL, query="?token=ann-token", headers={"Authorization": ""}
        )
        assert client.status == 101
        assert b"ann-token" not in keeper.first_bytes[0]
        client.close()


async def test_cors_for_allowed_pages_only(cluster: FakeCluster) -> None:
    config = ProxyConfig(users=USERS, allow_origin=("https://hub.example",))
    preflight = {
        "Origin": "https://hub.example",
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization",
    }
    async with (
        serve_edge(cluster, config=config) as server,
        aiohttp.ClientSession() as session,
    ):
        url = f"{server.url}api/kernels/{KERNEL}"
        async with session.options(url, headers=preflight) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "https://hub.example"
            assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        page = {"Origin": "https://hub.example", "Authorization": "token ann-token"}
        async with session.get(url, headers=page) as answer:  # an error must be readable, too
            assert answer.status == 404
            assert answer.headers["Access-Control-Allow-Origin"] == "https://hub.example"
        evil = {**preflight, "Origin": "https://evil.example"}
        async with session.options(url, headers=evil) as answer:
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
