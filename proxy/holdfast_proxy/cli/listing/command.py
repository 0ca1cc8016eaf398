"""`holdfast list`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ..access.options import cluster_options, output_options

if TYPE_CHECKING:
    from ..access.client import Client


@click.command("list")
@cluster_options
@output_options
def list_command(client: Client, as_json: bool, watch: float | None) -> None:
    """Show proxies, launchers and how the kernels are.

    Exit codes: 0 all is well, 3 it works and something is wrong, 4 no proxy answers.
    """
    from ..access.cluster import look
    from ..display.screen import Page, Screen
    from .page import list_page

    def page() -> Page:
        return list_page(look(client), datetime.now(UTC))

    sys.exit(Screen(as_json=as_json).run(page, watch=watch))
