"""`holdfast forget-launcher`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from ..access.options import cluster_options, json_option

if TYPE_CHECKING:
    from ..access.client import Client


@click.command("forget-launcher")
@click.argument("launcher", metavar="LAUNCHER_ID")
@cluster_options
@json_option
def forget_launcher(client: Client, launcher: str, as_json: bool) -> None:
    """Let a launcher that lost its state directory join anew.

    The cluster forgets its credential; it then joins by the join token. Whoever joins first under
    this id is that launcher, so be sure that the join token is in nobody else's hands.
    """
    client.call("DELETE", f"/holdfast/v1/launchers/{quote(launcher, safe='')}")
    if as_json:
        click.echo(json.dumps({"forgotten": launcher}))
    else:
        click.echo(f"{launcher} is forgotten; it joins with its next heartbeat, by the join token")
