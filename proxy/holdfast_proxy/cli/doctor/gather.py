"""Finds out what ``rules`` judges: from the proxies, from files and from what is installed here.

Everything is asked with a deadline and nothing is changed. Proxies are asked side by side, or one
that hangs would make all others look slow.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import stat
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ..access.client import Client
from ..access.exits import Refused, Unreachable
from ..display import times
from . import certificates
from .facts import Certificate, ConfigFacts, FileFacts, Installed, NotebookFacts, ProxyFacts

_EXTRAS = ("proxy", "launcher", "shim")
_NAME = re.compile(r"^[A-Za-z0-9._-]+")


def ask_proxies(client: Client, rows: Sequence[dict[str, Any]]) -> list[ProxyFacts]:
    """Each proxy of ``rows`` (id, url) and each of the site's addresses, side by side."""
    ids = {url: client.site.expected.get(url) for url in client.site.urls}
    ids.update({str(row["url"]).rstrip("/"): str(row["id"]) for row in rows})
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(ids)))) as pool:
        return list(pool.map(lambda item: _ask(client, *item), ids.items()))


def _ask(client: Client, url: str, expected_id: str | None) -> ProxyFacts:
    certificate = certificates.of_server(url, ca_file=client.site.ca_file, timeout=client.timeout)
    sent = time.monotonic()
    try:
        state = client.call_one(url, "/holdfast/v1/proxy")
    except Refused as error:
        refused = error.status in (401, 403)
        return ProxyFacts(url=url, expected_id=expected_id, error=error.message, refused=refused)
    except Unreachable as error:
        return ProxyFacts(
            url=url, expected_id=expected_id, error=error.message, certificate=certificate
        )
    took = time.monotonic() - sent
    return ProxyFacts(
        url=url,
        expected_id=expected_id,
        state=state if isinstance(state, dict) else {},
        round_trip=took,
        skew=_skew(state, took),
        certificate=certificate,
    )


def _skew(state: Any, took: float) -> float | None:
    moment = times.parse(state.get("time")) if isinstance(state, dict) else None
    if moment is None:
        return None
    return (moment - datetime.now(UTC)).total_seconds() + took / 2


def installed() -> Installed:
    """What is here; an extra of which nothing is here is not meant to be here."""
    missing = {}
    for extra in _EXTRAS:
        names = _needed(extra)
        absent = [name for name in names if not _is_installed(name)]
        if absent and len(absent) < len(names):
            missing[extra] = absent
    return Installed(
        version=importlib.metadata.version("holdfast"),
        python=platform.python_version(),
        missing=missing,
    )


def _needed(extra: str) -> list[str]:
    requires = importlib.metadata.requires("holdfast") or []
    found = []
    for text in requires:
        requirement, _, marker = text.partition(";")
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker):
            match = _NAME.match(requirement.strip())
            if match is not None and match[0] != "holdfast":
                found.append(match[0])
    return found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def state_files(state_dir: Path) -> list[FileFacts]:
    """What `holdfast up` keeps private."""
    found = [_file(state_dir, directory=True), _file(state_dir / "secrets", directory=True)]
    found += [_file(path) for path in sorted((state_dir / "secrets").glob("*"))]
    found.append(_file(state_dir / "cluster.json"))
    return [file for file in found if file.mode is not None]


def _file(path: Path, *, directory: bool = False) -> FileFacts:
    try:
        mode: int | None = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        mode = None
    return FileFacts(path=path, mode=mode, directory=directory)


def configs(paths: Iterable[Path]) -> list[ConfigFacts]:
    """Proxies' configuration files, read as a proxy reads them."""
    return [_config(path) for path in paths]


def own_configs(state_dir: Path) -> list[Path]:
    """Of the proxies that a `holdfast up` has."""
    return sorted(state_dir.glob("proxy-*.toml"))


def _config(path: Path) -> ConfigFacts:
    from ...config import ConfigError, load_config
    from ...server import tls_context

    try:
        config = load_config(path)
        tls_context(config)
        files = [config.tls_cert, config.etcd.ca_file, config.etcd.cert_file]
        found: list[Certificate] = []
        for name in files:
            found += [] if name is None else certificates.of_file(Path(name))
    except (ConfigError, OSError, ValueError, tomllib.TOMLDecodeError) as error:
        return ConfigFacts(path=path, error=str(error))
    return ConfigFacts(path=path, certificates=found)


def ask_notebook(url: str, token: str | None, *, timeout: float) -> NotebookFacts:
    """``GET {url}/api/holdfast/streams``, which the shim answers where it is active."""
    request = Request(f"{url.rstrip('/')}/api/holdfast/streams")  # noqa: S310 (checked below)
    if request.type not in ("http", "https"):
        return NotebookFacts(url=url, status=0, error="that is no http address")
    if token is not None:
        request.add_header("Authorization", f"token {token}")
    opener = build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=timeout) as answer:
            return NotebookFacts(url=url, status=answer.status, answer=_object(answer.read()))
    except HTTPError as error:
        status = 403 if 300 <= error.code < 400 else error.code  # to the login page
        return NotebookFacts(url=url, status=status, answer=_object(error.read()))
    except (OSError, ValueError) as error:
        why = str(getattr(error, "reason", None) or error)
        return NotebookFacts(url=url, status=0, error=why)


class _NoRedirect(HTTPRedirectHandler):
    """The token goes nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
