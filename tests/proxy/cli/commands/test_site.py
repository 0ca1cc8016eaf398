"""Which cluster is meant, and with which token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast_proxy.cli.access.exits import NotNamed
from holdfast_proxy.cli.access.site import Given, find_site

TREE = {
    "token": "tree-token",
    "proxies": [{"id": "proxy-1", "pid": 1, "url": "http://127.0.0.1:8900/"}],
}


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    (tmp_path / "cluster.json").write_text(json.dumps(TREE))
    return tmp_path


def token_file(tmp_path: Path, mode: int = 0o600, text: str = "file-token\n") -> Path:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_running_tree_tells_everything(state_dir: Path) -> None:
    site = find_site(Given(state_dir=state_dir), {})
    assert (site.urls, site.token) == (("http://127.0.0.1:8900",), "tree-token")
    assert site.expected == {"http://127.0.0.1:8900": "proxy-1"}
    assert "tree-token" not in repr(site)


def test_its_default_place(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = state_dir / "state"
    (home / "holdfast").mkdir(parents=True)
    (state_dir / "cluster.json").rename(home / "holdfast" / "cluster.json")
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    assert find_site(Given(), {}).token == "tree-token"


def test_options_win_over_the_environment(tmp_path: Path) -> None:
    env = {"HOLDFAST_URL": "http://env:1, http://env:2/", "HOLDFAST_TOKEN": "env-token"}
    site = find_site(Given(), env)
    assert (site.urls, site.token) == (("http://env:1", "http://env:2"), "env-token")
    given = Given(urls=("https://opt:3/base/",), token_file=token_file(tmp_path))
    site = find_site(given, env)
    assert (site.urls, site.token) == (("https://opt:3/base",), "file-token")
    assert find_site(Given(urls=("http://x:1",), token="t"), env).token == "t"


def test_a_token_file_by_the_environment(tmp_path: Path) -> None:
    env = {"HOLDFAST_URL": "http://env:1", "HOLDFAST_TOKEN_FILE": str(token_file(tmp_path))}
    assert find_site(Given(), env).token == "file-token"


@pytest.mark.parametrize(
    ("mode", "text", "word"), [(0o644, "t", "chmod 600"), (0o600, " \n", "is empty")]
)
def test_a_token_file_that_cannot_be_used(tmp_path: Path, mode: int, text: str, word: str) -> None:
    given = Given(urls=("http://x:1",), token_file=token_file(tmp_path, mode, text))
    with pytest.raises(NotNamed, match=word) as error:
        find_site(given, {})
    assert error.value.exit_code == 2


@pytest.mark.parametrize("url", ["proxy:8888", "ftp://x", "http://", "http://x:y", "http://[::1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(NotNamed, match="no address"):
        find_site(Given(urls=(url,)), {})


def test_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotNamed, match="holdfast up"):
        find_site(Given(state_dir=tmp_path / "none"), {})
    (tmp_path / "cluster.json").write_text("[]")
    with pytest.raises(NotNamed, match="not what `holdfast up` writes"):
        find_site(Given(state_dir=tmp_path), {})
    (tmp_path / "cluster.json").write_text("{")
    with pytest.raises(NotNamed, match="cannot be read"):
        find_site(Given(state_dir=tmp_path), {})
