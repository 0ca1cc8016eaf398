"""What `holdfast kernels` shows of kernels: a table of all, and one in full. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ..access.cluster import Seen
from ..access.exits import Exit
from ..display import ids, times
from ..display.screen import Page
from ..display.styles import BAD, QUIET, WORDS
from ..display.table import Column, Row, table
from ..display.text import plain, safe, size

_COLUMNS = (
    Column("short", "kernel"),
    Column("state", "state"),
    Column("name", "spec", rank=2),
    Column("user", "user", rank=3),
    Column("launcher", "launcher", rank=4),
    Column("owner", "owner", rank=5),
    Column("connections", "clients", rank=6, right=True),
    Column("log", "log", rank=7, right=True),
    Column("active", "last active", rank=1),
    Column("reason", "why", rank=1, least=20, wraps=True),
)


def kernels_page(seen: Seen, now: datetime) -> Page:
    """All kernels, those that are dead too."""

    def body(width: int) -> list[RenderableType]:
        if not seen.kernels:
            return [Text("no kernels", style=QUIET)]
        short = ids.shorten(str(kernel["id"]) for kernel in seen.kernels)
        rows = [_row(kernel, short, now) for kernel in seen.kernels]
        return [table(_COLUMNS, rows, width=width, styles=WORDS)]

    lost = any(kernel.get("state") == "unreachable" for kernel in seen.kernels)
    document = {"cluster": seen.document.get("cluster"), "kernels": seen.kernels}
    return Page(document=document, body=body, code=Exit.DEGRADED if lost else Exit.OK)


def _row(kernel: dict[str, Any], short: dict[str, str], now: datetime) -> Row:
    connections = kernel.get("connections")
    return {
        **kernel,
        "short": short[str(kernel["id"])],
        "owner": kernel.get("owner") or "-",
        "connections": "-" if connections is None else connections,
        "active": times.ago(kernel.get("last_activity"), now),
        "log": log_fill(kernel.get("log")),
        "reason": kernel.get("reason") or "",
    }


def log_fill(log: dict[str, Any] | None) -> str:
    """``12 MB``, with the share of the limit once that matters."""
    if not log:
        return "-"
    limit = log.get("limit")
    share = f" {100 * log['bytes'] // limit}%" if limit and log["bytes"] * 10 >= limit else ""
    return size(log["bytes"]) + share


def kernel_page(kernel: dict[str, Any], timeline: Sequence[dict[str, Any]], now: datetime) -> Page:
    """One kernel and what happened to it."""

    def body(width: int) -> list[RenderableType]:
        parts: list[RenderableType] = [_field(name, text) for name, text in _fields(kernel, now)]
        if timeline:
            parts += [Text(), Text("what happened", style="bold")]
            rows = [_event(line, now) for line in timeline]
            parts.append(table(_EVENTS, rows, width=width, styles=WORDS))
        return parts

    unreachable = kernel.get("state") == "unreachable"
    code = Exit.DEGRADED if unreachable else Exit.OK
    return Page(document={**kernel, "timeline": list(timeline)}, body=body, code=code)


_EVENTS = (
    Column("time", "time"),
    Column("kind", "what"),
    Column("proxy", "proxy", rank=1),
    Column("detail", "", least=30, wraps=True),
)


def _event(line: dict[str, Any], now: datetime) -> Row:
    return {**line, "time": times.clock(line.get("time"), now)}


def _field(name: str, text: str) -> Text:
    line = Text()
    line.append(f"{name:<14}", style=QUIET)
    style = WORDS.get(text, "") if name == "state" else ""
    if name == "why":
        style = BAD
    line.append(text, style=style)
    return line


def _fields(kernel: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    log = kernel.get("log")
    fields = [
        ("kernel", plain(kernel["id"])),
        ("state", plain(kernel.get("state"))),
        ("spec", plain(kernel.get("name"))),
        ("user", plain(kernel.get("user"))),
        ("launcher", plain(kernel.get("launcher"))),
        ("owner", plain(kernel.get("owner") or "nobody now: a proxy will take it")),
        ("started", times.both(kernel.get("started"), now)),
        ("last active", times.both(kernel.get("last_activity"), now)),
        ("clients", "-" if kernel.get("connections") is None else str(kernel["connections"])),
        ("incarnation", str(kernel.get("incarnation"))),
    ]
    if log:
        bound = f" of {size(log['limit'])}" if log.get("limit") else ""
        kept = f", messages {log['floor'] + 1} to {log['head']}"
        lost = f", {log['lost']} lost" if log.get("lost") else ""
        fields.append(("log", f"{size(log['bytes'])}{bound}{kept}{lost}"))
    if kernel.get("reason"):
        fields.append(("why", safe(str(kernel["reason"])).replace("\n", f"\n{'':<14}")))
    return fields
