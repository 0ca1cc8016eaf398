"""Which gateway is tried first, and which may be learned."""

from __future__ import annotations

import pytest

from holdfast_client_shim.gateway.endpoints import DOWN_SECONDS, Endpoint, EndpointPool, may_learn

A, B, C = (Endpoint.of(f"http://127.0.0.1:{port}") for port in (1, 2, 3))


def test_a_dead_endpoint_is_last_until_its_time_is_over() -> None:
    pool = EndpointPool([A, B, C])
    assert pool.order(0) == [A, B, C]
    pool.mark_down(A, 10)
    pool.mark_down(B, 11)
    assert pool.order(12) == [C, A, B], "the one longest down is tried again first"
    pool.mark_up(C)
    assert pool.order(10 + DOWN_SECONDS) == [C, A, B]
    assert not pool.is_down(A, 10 + DOWN_SECONDS)
    assert pool.is_down(B, 10 + DOWN_SECONDS)


def test_all_down_are_still_tried() -> None:
    pool = EndpointPool([A, B])
    pool.mark_down(A, 1)
    pool.mark_down(B, 0)
    assert pool.order(2) == [B, A]


@pytest.mark.parametrize(
    ("source", "learned", "verified", "allowed"),
    [
        ("https://gate.example", "https://other.example", True, True),
        ("https://gate.example", "https://other.example", False, False),
        ("https://gate.example", "http://other.example", True, False),
        ("http://gate.example", "http://other.example", True, False),
        ("http://gate.example", "https://other.example", True, False),
        ("http://127.0.0.1:1", "http://127.0.0.1:2", True, True),
        ("http://localhost:1", "http://[::1]:2", True, True),
        ("http://127.0.0.1:1", "http://other.example", True, False),
        ("http://127.0.0.1.evil.example", "http://127.0.0.1:2", True, False),
        ("https://gate.example", "http://127.0.0.1:2", True, False),
    ],
)
def test_who_may_get_the_token(source: str, learned: str, verified: bool, allowed: bool) -> None:
    answer = may_learn(Endpoint.of(source), Endpoint.of(learned), certificates_verified=verified)
    assert answer is allowed


def test_what_was_learned_once_is_kept_behind_what_is_named_now() -> None:
    pool = EndpointPool([A])
    urls = [B.url, "ftp://127.0.0.1", "http://other.example", A.url + "/"]
    assert pool.learn(A, urls, certificates_verified=True) == (B,)
    assert pool.endpoints == (A, B)
    pool.mark_up(B)
    assert pool.learn(B, [C.url], certificates_verified=True) == (C,)
    assert pool.endpoints == (A, C, B), "B may be restarting, and the only one soon"
    assert pool.preferred == B


@pytest.mark.parametrize("url", ["", "gate.example", "ws://gate.example", "http://"])
def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="gateway URL"):
        Endpoint.of(url)


def test_websocket_url_follows_or_is_given() -> None:
    assert Endpoint.of("https://gate.example/base/").ws_url == "wss://gate.example/base"
    assert Endpoint.of("http://a", "ws://b/").ws_url == "ws://b"


def test_a_password_in_a_url_is_never_shown() -> None:
    endpoint = Endpoint.of("https://ada:hunter2@gate.example:8443/base/")
    assert endpoint.name == "https://gate.example:8443/base"
    pool = EndpointPool([endpoint])
    pool.mark_down(endpoint, 0)
    assert "hunter2" not in f"{endpoint} {endpoint!r} {pool!r}"
    with pytest.raises(ValueError, match="starts with http") as refused:
        Endpoint.of("ftp://ada:hunter2@gate.example")
    assert "hunter2" not in str(refused.value)
