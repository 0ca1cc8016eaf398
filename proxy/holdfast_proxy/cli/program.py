"""The command's front: names the subcommands and loads each only when it is called.

It must not import what a subcommand needs (aiohttp, the store): ``holdfast --version`` and
``--help`` answer at once. Rejected: importing ``holdfast_launcher`` for ``holdfast launcher``;
siblings never import each other, so it is another program that takes this process's place.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.metadata import version
from typing import NoReturn

import click

from .completion.command import completion
from .demo.command import demo
from .doctor.command import doctor
from .drain.command import drain
from .history.command import history
from .kernels.command import kernels
from .listing.command import list_command
from .up.command import up


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("holdfast"), prog_name="holdfast")
def main() -> None:
    """Keep Jupyter kernels reachable when the gateway in front of them dies."""


@main.command()
@click.option(
    "--config",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The proxy's TOML file (docs/reference/configuration.md).",
)
def proxy(config: str) -> None:
    """Run one proxy in the foreground."""
    _become("holdfast_proxy", "proxy", config)


@main.command()
@click.option(
    "--config",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The launcher's TOML file (docs/reference/configuration.md).",
)
def launcher(config: str) -> None:
    """Run one launcher agent in the foreground."""
    _become("holdfast_launcher", "launcher", config)


main.add_command(up)
main.add_command(list_command)
main.add_command(history)
main.add_command(kernels)
main.add_command(drain)
main.add_command(doctor)
main.add_command(completion)
main.add_command(demo)


def _become(module: str, extra: str, config: str) -> NoReturn:
    """Replace this process by ``python -m module``, so that signals and exit codes are its own."""
    if importlib.util.find_spec(module) is None:
        raise click.ClickException(f'{module} is missing: pip install "holdfast[{extra}]"')
    os.execv(sys.executable, [sys.executable, "-m", module, "--config", config])  # noqa: S606 - no shell is wanted
