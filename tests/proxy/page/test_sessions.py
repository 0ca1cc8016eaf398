"""The page's cookies: who made them, for whom, until when; and what is none."""

from __future__ import annotations

import base64

import pytest

from holdfast_proxy.page.sessions import LIFETIME, Session, Sessions

NOW = 1_800_000_000.25
TOKENS = {"ann": "ann-token", "bob": "bob-token", "Zoë .": "z"}


def sessions(
    *, key: bytes = b"cluster-key", cluster: str = "default", tokens: dict[str, str] | None = None
) -> Sessions:
    return Sessions(key=key, cluster=cluster, tokens=TOKENS if tokens is None else tokens)


@pytest.mark.parametrize("user", TOKENS)
def test_any_proxy_of_the_cluster_takes_what_one_of_them_made(user: str) -> None:
    cookie = sessions().issue(user, now=NOW)
    assert sessions().check(cookie, now=NOW) == Session(user, 1_800_000_000 + LIFETIME)
    assert sessions().cookie_name == sessions(key=b"other").cookie_name


def test_it_ends_after_twelve_hours_to_the_second() -> None:
    cookie = sessions().issue("ann", now=NOW)
    end = 1_800_000_000 + 12 * 3600
    assert sessions().check(cookie, now=end - 0.001) is not None
    assert sessions().check(cookie, now=end) is None
    assert sessions().check(cookie, now=end + 1e9) is None


@pytest.mark.parametrize(
    "other",
    [
        sessions(key=b"another key"),
        sessions(cluster="staging"),
        sessions(tokens={**TOKENS, "ann": "a new token"}),
        sessions(tokens={"bob": "bob-token"}),
    ],
    ids=["other key", "other cluster", "token changed", "user gone"],
)
def test_it_means_nothing_elsewhere_or_after_the_token_changed(other: Sessions) -> None:
    assert other.check(sessions().issue("ann", now=NOW), now=NOW) is None


def test_two_clusters_on_one_host_use_two_names() -> None:
    assert sessions().cookie_name != sessions(cluster="staging").cookie_name


def test_no_piece_of_it_can_be_changed() -> None:
    cookie = sessions().issue("ann", now=NOW)
    expires, user, mac = cookie.split(".")
    bob = base64.urlsafe_b64encode(b"bob").rstrip(b"=").decode()
    forged = [
        f"{int(expires) + 1}.{user}.{mac}",
        f"{expires}.{bob}.{mac}",
        f"{expires}.{user}.{'A' * len(mac)}",
        f"{expires}.{user}.{mac}A",
        f"{expires}.{user}.{mac[:-1]}",
        f"{expires}.{user}=.{mac}",
        f"0{expires}.{user}.{mac}",
        f"+{expires}.{user}.{mac}",
        f"{expires}.{user}.",
        f"{expires}.{user}",
        f"{expires}..{mac}",
        f" {cookie}",
        f"{cookie} ",
    ]
    for text in forged:
        assert sessions().check(text, now=NOW) is None, text
    for n in range(len(cookie)):
        changed = cookie[:n] + ("B" if cookie[n] != "B" else "C") + cookie[n + 1 :]
        assert sessions().check(changed, now=NOW) is None, n


@pytest.mark.parametrize(
    "text",
    [None, "", ".", "..", "1.é.x", "\udcff", "9" * 5000, "1.!!.x", "\u0661.YQ.x", "a.YQ.x"],
)
def test_rubbish_is_no_session_and_no_error(text: str | None) -> None:
    assert sessions().check(text, now=NOW) is None


def test_it_shows_neither_token_nor_key() -> None:
    made = sessions()
    seen = made.issue("ann", now=NOW) + repr(made) + made.cookie_name
    assert "ann-token" not in seen
    assert "cluster-key" not in seen
    assert not any("ann-token" in str(value) for value in vars(made).values())


def test_a_stranger_cannot_be_signed_in() -> None:
    with pytest.raises(KeyError):
        sessions().issue("mallory", now=NOW)
