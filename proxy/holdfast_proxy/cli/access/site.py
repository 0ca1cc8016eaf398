"""Which cluster is meant: addresses and a token from options, the environment or `holdfast up`.

Options win over the environment, and both over the state directory of `holdfast up`. Reads files
and no sockets. The token is shown by nothing here, not even by a repr.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..up.state_dir import default_state_dir
from .exits import NotNamed

URL, TOKEN, TOKEN_FILE, CA_FILE = (
    "HOLDFAST_URL",
    "HOLDFAST_TOKEN",
    "HOLDFAST_TOKEN_FILE",
    "HOLDFAST_CA_FILE",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The options of the command line; empty ones were not given."""

    urls: Sequence[str] = ()
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    state_dir: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where to ask. ``expected``: proxies that should run here, by address (from cluster.json)."""

    urls: tuple[str, ...]
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    expected: Mapping[str, str] = field(default_factory=dict)
    state_dir: Path | None = None


def find_site(given: Given, env: Mapping[str, str]) -> Site:
    """Raises NotNamed when no cluster is named, or a file cannot be read."""
    ca_file = given.ca_file or _path(env.get(CA_FILE))
    urls = tuple(given.urls) or tuple(re.split(r"[,\s]+", env.get(URL, "").strip()))
    urls = tuple(_checked(url) for url in urls if url)
    token = _token(given, env)
    if urls and given.state_dir is None:
        return Site(urls=urls, token=token, ca_file=ca_file)
    state_dir = given.state_dir or default_state_dir()
    tree = _cluster_file(state_dir / "cluster.json", named=given.state_dir is not None)
    expected = {str(item["url"]).rstrip("/"): str(item["id"]) for item in tree["proxies"]}
    return Site(
        urls=urls or tuple(expected),
        token=token or tree.get("token"),
        ca_file=ca_file,
        expected=expected,
        state_dir=state_dir,
    )


def read_token(path: Path) -> str:
    """The token in a file that others cannot read. Raises NotNamed."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotNamed(f"the token file {path} cannot be read: {error}") from error
    if mode & 0o077:
        raise NotNamed(f"{path} holds a token and is open to others: chmod 600 it")
    if not token:
        raise NotNamed(f"the token file {path} is empty")
    return token


def _token(given: Given, env: Mapping[str, str]) -> str | None:
    if given.token:
        return given.token
    if given.token_file is not None:
        return read_token(given.token_file)
    if env.get(TOKEN):
        return env[TOKEN]
    named = _path(env.get(TOKEN_FILE))
    return None if named is None else read_token(named)


def _cluster_file(path: Path, *, named: bool) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(tree, dict) and isinstance(tree.get("proxies"), list):
            return tree
        raise NotNamed(f"{path} is not what `holdfast up` writes")
    except FileNotFoundError:
        where = f"nothing runs in {path.parent}" if named else "no cluster is named"
        raise NotNamed(
            f"{where}: name one by --url and --token-file (or {URL} and {TOKEN}), or start one "
            "with `holdfast up`"
        ) from None
    except (OSError, ValueError) as error:
        raise NotNamed(f"{path} cannot be read: {error}") from error


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise NotNamed(f"{url!r} is no address of a proxy: http://host:port or https://host:port")
    return url.rstrip("/")


def _path(name: str | None) -> Path | None:
    return Path(name).expanduser() if name else None
