"""`holdfast doctor`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..access.exits import CommandFailed, Exit, NotNamed, Refused, Unreachable
from ..access.options import cluster_options, json_option
from ..access.site import read_token

if TYPE_CHECKING:
    from ..access.client import Client
    from .findings import Finding

#: Seconds in which every proxy should have seen a new era.
_ERA_SECONDS = 20.0

_file = click.Path(dir_okay=False, path_type=Path)


@click.command()
@cluster_options
@json_option
@click.option(
    "--config",
    "configs",
    type=_file,
    multiple=True,
    help="A proxy's TOML file on this machine, to be checked too; may repeat.",
)
@click.option("--notebook", metavar="URL", help="A Jupyter server: is the shim active there?")
@click.option("--notebook-token", metavar="TOKEN", help="Rather --notebook-token-file.")
@click.option("--notebook-token-file", type=_file, help="A file with its token, mode 0600.")
@click.option(
    "--new-era",
    is_flag=True,
    help="After a restore of etcd: raise the era, so that proxies may act again. Needs --config.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before raising the era.")
def doctor(
    client: Client,
    as_json: bool,
    configs: tuple[Path, ...],
    notebook: str | None,
    notebook_token: str | None,
    notebook_token_file: Path | None,
    new_era: bool,
    yes: bool,
) -> None:
    """Look for what is wrong, and say what to do about it.

    Exit codes: 0 nothing is (warnings perhaps), 3 something is, 4 no proxy answers.
    """
    from . import gather

    if not configs and client.site.state_dir is not None:
        configs = tuple(gather.own_configs(client.site.state_dir))
    if new_era:
        _new_era(client, configs, yes=yes)
        return
    if notebook_token_file is not None:
        notebook_token = read_token(notebook_token_file)
    _examine(client, configs, notebook, notebook_token, as_json=as_json)


def _examine(
    client: Client,
    configs: tuple[Path, ...],
    notebook: str | None,
    notebook_token: str | None,
    *,
    as_json: bool,
) -> None:
    from ..display.screen import Screen
    from . import gather, rules
    from .findings import exit_of
    from .report import report_page

    cluster, findings, answered = _cluster(client)
    if client.site.state_dir is not None:
        findings += rules.check_files(gather.state_files(client.site.state_dir))
    findings += rules.check_configs(gather.configs(configs))
    if notebook is not None:
        facts = gather.ask_notebook(notebook, notebook_token, timeout=client.timeout)
        findings += rules.check_notebook(facts)
    code = exit_of(findings, answered=answered)
    Screen(as_json=as_json).show(report_page(findings, code=code, cluster=cluster))
    sys.exit(int(code))


def _cluster(client: Client) -> tuple[str | None, list[Finding], bool]:
    """The cluster's name, what was found, and whether any proxy answered."""
    from . import gather, rules

    installed = gather.installed()
    try:
        document: dict[str, Any] = client.get("/holdfast/v1/cluster?timeline=0")
        checks: dict[str, Any] = client.get("/holdfast/v1/checks")
    except Unreachable:
        proxies = gather.ask_proxies(client, ())
        found = rules.check_versions(installed, ()) + rules.check_proxies(proxies)
        return None, found, any(proxy.refused or proxy.state for proxy in proxies)
    except Refused as error:
        raise CommandFailed(error.message) from error
    proxies = gather.ask_proxies(client, document["proxies"])
    rows = [proxy.state for proxy in proxies if proxy.state is not None]
    findings = rules.check_versions(installed, [*rows, *checks["launchers"]])
    findings += rules.check_proxies(proxies)
    findings += rules.check_peers(checks)
    findings += rules.check_launchers(checks, document)
    skews = {str((p.state or {}).get("id", p.url)): p.skew for p in proxies}
    asked = skews.get(str(checks["self"]))
    if asked is not None:  # launchers are compared with the proxy that asked them
        for row in checks["launchers"]:
            skew = row.get("clock_skew")
            skews[str(row["id"])] = None if skew is None else skew + asked
    findings += rules.check_clocks({"this machine": 0.0, **skews})
    findings += rules.check_etcd(checks["etcd"])
    return str(document["cluster"]), findings, True


def _new_era(client: Client, configs: tuple[Path, ...], *, yes: bool) -> None:
    import asyncio

    from .era import read_config

    if not configs:
        raise NotNamed("--new-era needs --config: a proxy's file, for the way to etcd")
    config = read_config(configs[0])
    era = asyncio.run(_raise(config, at_least=max(_eras(client), default=0), yes=yes))
    click.echo(f"the era is {era} now")
    deadline = time.monotonic() + _ERA_SECONDS
    while min(_eras(client), default=0) < era:
        if time.monotonic() > deadline:
            raise CommandFailed(
                "no proxy has said that it runs by it; look with `holdfast list`, and restart "
                "proxies that do not"
            )
        time.sleep(0.25)
    click.echo("the proxies run by it")
    sys.exit(int(Exit.OK))


def _eras(client: Client) -> list[int]:
    """By which the proxies run that answer."""
    from . import gather

    proxies = gather.ask_proxies(client, ())
    return [int(proxy.state.get("era") or 0) for proxy in proxies if proxy.state is not None]


async def _raise(config: Any, *, at_least: int, yes: bool) -> int:
    from holdfast_protocol.keys import Keys

    from ...ownership.assembly import connect_store
    from .era import raise_era

    def confirm(old: int, new: int) -> None:
        said = (
            f"This raises the era of cluster {config.cluster!r} from {old} to {new}: proxies "
            "claim every kernel again, and whatever acts by the old era is refused. Do it only "
            "after etcd was restored or replaced."
        )
        if yes:
            return
        if not sys.stdin.isatty():
            raise CommandFailed(f"{said} Say --yes if that is meant")
        click.confirm(f"{said} Go on?", abort=True, err=True)

    async with connect_store(config) as store:
        return await raise_era(
            store,
            Keys(config.cluster),
            mode=config.mode.value,
            at_least=at_least,
            confirm=confirm,
        )
