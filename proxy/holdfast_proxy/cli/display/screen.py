"""Shows a page once, or again and again; as text, or as JSON for programs.

On a terminal ``--watch`` redraws in place; elsewhere every page follows the last one, so that a
file or a pipe has all of them. An error while watching is shown and the watching goes on, because
that is mostly when somebody looks. Must not know what a page is about.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ..access.exits import CommandFailed, Exit

#: Where there is no terminal nothing is cut, so lines are as wide as they need to be.
UNBOUNDED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """``document``: what ``--json`` prints. ``body``: what people see, for a width in cells."""

    document: Any
    body: Callable[[int], Sequence[RenderableType]]
    code: Exit = Exit.OK
    notes: Sequence[str] = field(default_factory=tuple)


class Screen:
    """``sleep`` and ``console`` are for tests."""

    def __init__(
        self,
        *,
        as_json: bool,
        console: Console | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._as_json = as_json
        self._console = console or make_console()
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<Screen {'json' if self._as_json else self._console.width}>"

    @property
    def width(self) -> int:
        """Cells in a line."""
        return self._console.width if self._console.is_terminal else UNBOUNDED

    def run(self, look: Callable[[], Page], *, watch: float | None = None) -> Exit:
        """Show ``look()``; with ``watch`` seconds, again until Ctrl-C. The exit code."""
        if watch is None:
            page = look()
            self.show(page)
            return page.code
        code = Exit.OK
        try:
            if self._console.is_terminal and not self._as_json:
                self._watch_in_place(look, watch)
            while True:
                code = self._show_or_say(look)
                self._sleep(watch)
        except KeyboardInterrupt:
            return code

    def show(self, page: Page) -> None:
        """One page, and its notes on standard error."""
        if self._as_json:
            click.echo(json.dumps(page.document, ensure_ascii=False, sort_keys=False))
        else:
            self._print(page.body(self.width))
        for note in page.notes:
            click.echo(note, err=True)

    def _print(self, body: Sequence[RenderableType]) -> None:
        if self._console.is_terminal:
            for part in body:
                self._console.print(part)
            return
        with self._console.capture() as captured:
            for part in body:
                self._console.print(part, soft_wrap=isinstance(part, Text))
        # Columns are padded to their width, which no reader of a file wants.
        for line in captured.get().splitlines():
            click.echo(line.rstrip())

    def _show_or_say(self, look: Callable[[], Page]) -> Exit:
        try:
            page = look()
        except CommandFailed as error:
            click.echo(f"holdfast: {error.message}", err=True)
            return Exit(error.exit_code)
        self.show(page)
        if not self._as_json:
            click.echo()
        sys.stdout.flush()
        return page.code

    def _watch_in_place(self, look: Callable[[], Page], seconds: float) -> None:
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                try:
                    page = look()
                    body = [*page.body(self.width), *(Text(note) for note in page.notes)]
                except CommandFailed as error:
                    body = [Text(f"holdfast: {error.message}", style="red")]
                live.update(Group(*body), refresh=True)
                self._sleep(seconds)


def make_console() -> Console:
    """Standard output. rich takes NO_COLOR and the terminal's width from the environment."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(
            highlight=False, markup=False, emoji=False, width=UNBOUNDED, no_color=True
        )
    return console
