"""`holdfast history`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ..access.exits import NotNamed
from ..access.options import cluster_options, output_options
from ..completion.names import complete_kernel

#: As many as the proxies keep.
_ALL = 2_000

if TYPE_CHECKING:
    from ..access.client import Client


@click.command()
@cluster_options
@output_options
@click.option("--since", metavar="TIME", help="10m, 2h, 1d, 14:05, or an ISO 8601 time.")
@click.option(
    "--kernel",
    metavar="ID",
    shell_complete=complete_kernel,
    help="Only of this kernel; the beginning of its id is enough.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, _ALL),
    default=50,
    show_default=True,
    help="The newest lines only.",
)
def history(
    client: Client,
    as_json: bool,
    watch: float | None,
    since: str | None,
    kernel: str | None,
    limit: int,
) -> None:
    """Show what happened: starts, deaths, takeovers, who came and who went."""
    from ..access.cluster import look
    from ..display import times
    from ..display.screen import Page, Screen
    from .page import history_page, select

    try:
        begin = None if since is None else times.since(since, datetime.now(UTC))
    except ValueError as error:
        raise NotNamed(f"--since {since!r} is no time: 10m, 2h, 1d, 14:05 or ISO 8601") from error

    def page() -> Page:
        seen = look(client, timeline=_ALL)
        lines = select(seen.timeline, since=begin, kernel=kernel, most=limit)
        return history_page(seen, lines, datetime.now(UTC))

    sys.exit(Screen(as_json=as_json).run(page, watch=watch))
