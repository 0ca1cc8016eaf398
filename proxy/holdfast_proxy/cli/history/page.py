"""What `holdfast history` shows: the timeline, chosen and as a table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ..access.cluster import Seen
from ..access.exits import Exit
from ..access.naming import known_id
from ..display import ids, times
from ..display.screen import Page
from ..display.styles import QUIET, WORDS
from ..display.table import Column, table

_COLUMNS = (
    Column("time", "time"),
    Column("ago", "", rank=3),
    Column("kind", "what"),
    Column("kernel", "kernel", rank=1),
    Column("proxy", "proxy", rank=2),
    Column("detail", "", least=30, wraps=True),
)


def select(
    lines: Sequence[dict[str, Any]],
    *,
    since: datetime | None,
    kernel: str | None,
    most: int,
) -> list[dict[str, Any]]:
    """The newest ``most`` lines, oldest first, since a time and about a kernel.

    ``kernel``: an id or its beginning. Raises NotNamed when it names none or several.
    """
    if kernel is not None:
        known = {str(line["kernel"]) for line in lines if line.get("kernel")}
        kernel = known_id(kernel, known, "kernel on the timeline")
    found = [
        line
        for line in lines
        if (kernel is None or line.get("kernel") == kernel)
        and (since is None or ((at := times.parse(line.get("time"))) is not None and at >= since))
    ]
    return found[-most:]


def history_page(seen: Seen, lines: Sequence[dict[str, Any]], now: datetime) -> Page:
    """A page of ``lines``, of those that ``seen`` has."""

    def body(width: int) -> list[RenderableType]:
        if not lines:
            return [Text("nothing happened in that time", style=QUIET)]
        short = ids.shorten(str(line["kernel"]) for line in lines if line.get("kernel"))
        rows = [_row(line, short, now) for line in lines]
        return [table(_COLUMNS, rows, width=width, styles=WORDS)]

    document = {"cluster": seen.document.get("cluster"), "timeline": list(lines)}
    return Page(document=document, body=body, code=Exit.OK)


def _row(line: dict[str, Any], short: dict[str, str], now: datetime) -> dict[str, Any]:
    detail, kind = str(line.get("detail") or ""), str(line.get("kind") or "")
    proxy = line.get("proxy") or ""
    subject = {"proxy": proxy, "launcher": line.get("launcher")}.get(kind.partition(" ")[0])
    if subject:  # it is about this one, and who wrote it down is of no interest
        detail, proxy = f"{subject}{': ' if detail else ''}{detail}", ""
    return {
        "time": times.clock(line.get("time"), now),
        "ago": times.ago(line.get("time"), now),
        "kind": kind,
        "kernel": short.get(str(line.get("kernel")), ""),
        "proxy": proxy,
        "detail": detail,
    }
