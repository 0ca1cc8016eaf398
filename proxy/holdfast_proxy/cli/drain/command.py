"""`holdfast drain`."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from ..access.exits import CommandFailed, Exit, Refused, Unreachable
from ..access.naming import known_id
from ..access.options import cluster_options, json_option
from ..completion.names import complete_proxy

if TYPE_CHECKING:
    from ..access.client import Client
    from .progress import Before, Step

_EVERY = 0.25


@click.command()
@click.argument("proxy", metavar="PROXY_ID", shell_complete=complete_proxy)
@click.option("--wait", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds.")
@click.option("-y", "--yes", is_flag=True, help="Also when no other proxy is ready.")
@cluster_options
@json_option
def drain(client: Client, proxy: str, wait: float, yes: bool, as_json: bool) -> None:
    """Ask a proxy to end in order, and wait until it has.

    Its clients go to the other proxies and lose nothing; kernels go on. The process ends then, and
    what supervises it may start it again.
    """
    from ..access.cluster import look
    from .progress import before_drain

    seen = look(client)
    proxy_id = known_id(proxy, {str(row["id"]) for row in seen.proxies}, "proxy")
    row = next(row for row in seen.proxies if row["id"] == proxy_id)
    before = before_drain(seen, row)
    if before.alone and not yes:
        _confirm(proxy_id)
    began = time.monotonic()
    client.call("POST", f"/holdfast/v1/proxies/{quote(proxy_id)}/drain")
    tunnels = "" if before.tunnels is None else f"{before.tunnels} tunnels and "
    if not as_json:
        click.echo(f"{proxy_id} was asked; it has {tunnels}{len(before.kernels)} kernels")
    step = _see_through(client, before, until=began + wait, quiet=as_json)
    took = time.monotonic() - began
    if as_json:
        click.echo(json.dumps(_document(before, step, took)))
    if not step.done:
        raise CommandFailed(
            f"after {wait:.0f} s: {step.sentence(before)}. It goes on by itself; "
            "look with `holdfast list`"
        )
    if not as_json:
        click.echo(f"{step.sentence(before)} ({took:.1f} s)")
    sys.exit(int(Exit.OK))


def _confirm(proxy_id: str) -> None:
    said = (
        f"no other proxy is ready: until one is, clients of {proxy_id} have nowhere to go "
        "(kernels go on)"
    )
    if not sys.stdin.isatty():
        raise CommandFailed(f"{said}. Say --yes if that is meant")
    click.confirm(f"{said}. Drain it?", abort=True, err=True)


def _see_through(client: Client, before: Before, *, until: float, quiet: bool) -> Step:
    told = ""
    while True:
        step = _look(client, before)
        sentence = step.sentence(before)
        if sentence != told and not step.done and not quiet:
            click.echo(sentence)
            told = sentence
        if step.done or time.monotonic() > until:
            return step
        time.sleep(_EVERY)


def _look(client: Client, before: Before) -> Step:
    from ..access.cluster import look
    from .progress import step_alone, step_of

    try:
        return step_of(before, look(client))
    except (Unreachable, Refused):
        pass
    try:
        said = client.call_one(before.url, "/holdfast/v1/whoami", anonymous=True)
    except (Unreachable, Refused):
        return step_alone(before, None)
    return step_alone(before, str(said.get("boot_id")))


def _document(before: Before, step: Step, took: float) -> dict[str, object]:
    return {
        "proxy": before.proxy_id,
        "drained": step.done,
        "restarted": step.restarted,
        "seconds": round(took, 3),
        "tunnels": before.tunnels,
        "kernels": len(before.kernels),
        "owners": dict(step.owners),
        "waiting": step.waiting,
    }
