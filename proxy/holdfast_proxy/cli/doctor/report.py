"""Findings as a page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..access.exits import Exit
from ..display.screen import Page
from ..display.styles import QUIET, WORDS
from ..display.text import plain
from .findings import Finding, Level

_WIDEST_SUBJECT = 22


def report_page(findings: Sequence[Finding], *, code: Exit, cluster: str | None) -> Page:
    """All findings in their order, then how many of each."""

    def body(width: int) -> list[RenderableType]:
        return [_findings(findings, width), Text(), _sum(findings)]

    document: dict[str, Any] = {
        "cluster": cluster,
        "findings": [finding.document() for finding in findings],
        "exit": int(code),
    }
    return Page(document=document, body=body, code=code)


def _findings(findings: Sequence[Finding], width: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    # A path is cut in its middle of the page, not the sentence that says what is wrong with it.
    grid.add_column(max_width=_WIDEST_SUBJECT if width < 200 else None, overflow="fold")
    grid.add_column(overflow="fold")
    for finding in findings:
        level = finding.level.value
        grid.add_row(
            Text(level, style=WORDS.get(level, QUIET)), plain(finding.subject), plain(finding.text)
        )
        if finding.todo:
            grid.add_row("", "", Text(f"-> {plain(finding.todo)}", style=QUIET))
    return grid


def _sum(findings: Sequence[Finding]) -> Text:
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if not problems and not warnings:
        return Text("all is well", style=WORDS["ok"])
    parts = []
    if problems:
        parts.append(f"{problems} problem{'s' if problems > 1 else ''}")
    if warnings:
        parts.append(f"{warnings} warning{'s' if warnings > 1 else ''}")
    style = WORDS["problem"] if problems else WORDS["warning"]
    return Text(" and ".join(parts), style=style)
