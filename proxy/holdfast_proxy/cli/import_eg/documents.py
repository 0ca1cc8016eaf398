"""The files of a Holdfast that takes a gateway's place: their names, contents and permissions.

Pure up to ``write``. ``secrets`` are made here: proxies know each other and launchers join by keys
that the gateway had no counterpart of.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..up.toml import dump
from .findings import Fate
from .kernelspecs import Imported, KernelSpec
from .settings import Translation

_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared and written, not bound
_ID = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Documents:
    """``texts`` and ``secrets``: file name → contents. Secrets are 0600 and never shown."""

    texts: dict[str, str]
    secrets: dict[str, str] = field(repr=False)
    specs: tuple[KernelSpec, ...]


def compose(
    result: Translation, imported: Imported, *, hostname: str, new_secret: Callable[[], str]
) -> Documents:
    """All files. Adds what had to be assumed to the findings of ``result``."""
    hosts = list(dict.fromkeys([*result.hosts, *imported.hosts]))
    secrets = {"cluster.key": new_secret(), "join.token": new_secret()}
    if result.token is not None or not result.loopback:
        secrets["token"] = result.token or new_secret()
    proxy = _proxy(result, hostname, with_token="token" in secrets)
    url = str(proxy.get("advertised_url") or _url(proxy, str(proxy.get("host", "127.0.0.1"))))
    texts = {"proxy.toml": dump(proxy)}
    machines: list[str | None] = [*hosts] if hosts else [None]
    for host in machines:
        name = "launcher.toml" if host is None else f"launcher-{_ID.sub('-', host)}.toml"
        texts[name] = dump(_launcher(result, host, url, loopback=result.loopback))
    for spec in imported.specs:
        texts[f"kernels/{spec.name}/kernel.json"] = json.dumps(spec.document, indent=1) + "\n"
    _assumptions(result, url, hosts)
    return Documents(texts, secrets, tuple(imported.specs))


def _proxy(result: Translation, hostname: str, *, with_token: bool) -> dict[str, Any]:
    table = {**result.proxy, "single_user": True}
    table |= {"cluster_key_file": "cluster.key", "join_token_file": "join.token"}
    if with_token:
        table["token_file"] = "token"  # noqa: S105 - the name of a file
    if str(table.get("host", "")) in _EVERYWHERE:
        table["advertised_url"] = _url(table, hostname)
    return {**table, "etcd": {"endpoints": ["http://127.0.0.1:2379"]}}


def _url(table: dict[str, Any], host: str) -> str:
    scheme = "https" if "tls_cert" in table else "http"
    shown = f"[{host}]" if ":" in host else host
    base = str(table.get("base_url", "/")).rstrip("/")
    return f"{scheme}://{shown}:{table.get('port', 8888)}{base}"


def _launcher(result: Translation, host: str | None, url: str, *, loopback: bool) -> dict[str, Any]:
    table: dict[str, Any] = {
        "launcher_id": "launcher-1" if host is None else _ID.sub("-", host),
        "state_dir": "launcher-state",
        "proxies": [url],
        "join_token_file": "join.token",
        "single_user": True,
        "kernelspec_dirs": ["kernels"],
        **result.launcher,
    }
    if host is not None:
        table |= {"host": "0.0.0.0", "advertise_host": host}  # noqa: S104 - with TLS and a credential
    if result.capacity is not None:
        table["capacity"] = {"kernels": result.capacity}
    return table


def _assumptions(result: Translation, url: str, hosts: Sequence[str]) -> None:
    say = result.say
    say("single_user", Fate.TAKEN, "who has the token is one user, as before; or use [[users]]")
    say("etcd", Fate.NO_COUNTERPART, "set [etcd] endpoints: the gateway kept nothing in etcd")
    if str(result.proxy.get("host", "")) in _EVERYWHERE:
        say(
            "ip",
            Fate.NO_COUNTERPART,
            f"every address: is {url} how clients and launchers reach it?",
        )
    if hosts and result.loopback:
        text = "the proxy listens on loopback: give it an address that the launchers reach"
        say("remote_hosts", Fate.NO_COUNTERPART, text)
    elif not result.loopback and "tls_cert" not in result.proxy:
        text = (
            "the proxy has no certificate: launchers dial it by plain HTTP only with "
            "allow_plain_proxies = true"
        )
        say("certfile", Fate.NO_COUNTERPART, text)


def write(documents: Documents, folder: Path, report: str) -> None:
    """Write everything into ``folder``, which must be empty or not there. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    for name, text in documents.texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for spec in documents.specs:
        for file in spec.files:
            shutil.copyfile(file, folder / "kernels" / spec.name / file.name)
    for name, secret in documents.secrets.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(folder / name, flags, 0o600), "w") as file_object:
            file_object.write(secret + "\n")
    (folder / "report.txt").write_text(report, encoding="utf-8")
