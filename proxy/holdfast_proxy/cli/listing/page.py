"""What `holdfast list` shows, from a document to a page. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ..access.cluster import Seen, exit_of, troubles
from ..display import times
from ..display.screen import Page
from ..display.styles import BAD, CARE, QUIET, WORDS
from ..display.table import Column, Row, table
from ..display.text import plain

_PROXIES = (
    Column("id", "proxy"),
    Column("status", "status"),
    Column("role", "role", rank=3),
    Column("tunnels", "tunnels", rank=1, right=True),
    Column("owned", "owns", rank=1, right=True),
    Column("version", "version", rank=4),
    Column("url", "address", rank=2, least=16),
)
_LAUNCHERS = (
    Column("id", "launcher"),
    Column("status", "status"),
    Column("kernels", "kernels", right=True),
    Column("engine", "engine", rank=2),
    Column("seen", "last heartbeat", rank=1),
    Column("labels", "labels", rank=4, least=10),
    Column("url", "address", rank=3, least=16),
)
_STATES = ("busy", "idle", "starting", "restarting", "unknown", "unreachable", "deleting", "dead")


def list_page(seen: Seen, now: datetime) -> Page:
    """``now``: of this machine, with a zone."""
    found = troubles(seen)

    def body(width: int) -> list[RenderableType]:
        return _body(seen, now, width, found)

    document = {**seen.document, "troubles": found}
    return Page(document=document, body=body, code=exit_of(found))


def _body(seen: Seen, now: datetime, width: int, found: Sequence[str]) -> list[RenderableType]:
    parts: list[RenderableType] = [_head(seen), _etcd(seen), Text()]
    proxies = [_proxy(proxy) for proxy in seen.proxies]
    parts += [table(_PROXIES, proxies, width=width, styles=WORDS), Text()]
    launchers = [_launcher(launcher, now) for launcher in seen.launchers]
    if launchers:
        parts += [table(_LAUNCHERS, launchers, width=width, styles=WORDS), Text()]
    parts.append(_kernels(seen))
    warnings = seen.document.get("etcd", {}).get("warnings", ())
    if seen.document.get("etcd", {}).get("reachable"):
        parts += [Text(f"note: {plain(text)}", style=CARE) for text in warnings]
    parts += [Text(f"! {plain(text)}", style=BAD) for text in found]
    return parts


def _head(seen: Seen) -> Text:
    document = seen.document
    text = Text("cluster ")
    text.append(plain(document.get("cluster", "?")), style="bold")
    text.append(f"  {document.get('mode', '')}, era {document.get('era', '?')}")
    text.append(f", as {plain(document.get('self', '?'))} sees it", style=QUIET)
    return text


def _etcd(seen: Seen) -> Text:
    etcd = seen.document.get("etcd", {})
    version = f" {plain(etcd['version'])}" if etcd.get("version") else ""
    if not etcd.get("reachable"):
        return Text(f"etcd{version} does not answer; this is what was known before", style=BAD)
    age = etcd.get("lease_age")
    lease = "no lease" if age is None else f"lease renewed {times.span(age)} ago"
    return Text(f"etcd{version} answers, {lease}")


def _proxy(proxy: dict[str, Any]) -> Row:
    mark = " *" if proxy.get("self") else ""
    tunnels = proxy.get("tunnels")
    return {
        **proxy,
        "id": f"{proxy.get('id', '?')}{mark}",
        "role": proxy.get("role") or "",
        "tunnels": "-" if tunnels is None else tunnels,
    }


def _launcher(launcher: dict[str, Any], now: datetime) -> Row:
    bound = (launcher.get("capacity") or {}).get("kernels")
    labels = launcher.get("labels") or {}
    return {
        **launcher,
        "status": "alive" if launcher.get("alive") else "gone",
        "kernels": f"{launcher.get('kernels', 0)}/{bound}" if bound else launcher.get("kernels", 0),
        "seen": times.ago(launcher.get("last_seen"), now),
        "labels": " ".join(f"{name}={value}" for name, value in sorted(labels.items())),
    }


def _kernels(seen: Seen) -> Text:
    counts = Counter(str(kernel.get("state")) for kernel in seen.kernels)
    living = sum(count for state, count in counts.items() if state != "dead")
    text = Text(f"{living} kernel{'' if living == 1 else 's'}")
    order: Callable[[str], int] = lambda state: (  # noqa: E731 (a key, used once)
        _STATES.index(state) if state in _STATES else len(_STATES)
    )
    told = [f"{counts[state]} {state}" for state in sorted(counts, key=order)]
    if told:
        text.append(f": {', '.join(told)}")
    return text
