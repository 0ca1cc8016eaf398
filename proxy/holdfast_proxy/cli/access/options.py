"""The options that all commands that ask a cluster share, and the client that they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

#: Seconds for a connection and for each read.
_TIMEOUT = 5.0
_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--url",
        "urls",
        multiple=True,
        metavar="URL",
        help="A proxy's address; may repeat. [HOLDFAST_URL]",
    ),
    click.option(
        "--token",
        metavar="TOKEN",
        help="Others on this machine can read a command line: rather --token-file, or "
        "HOLDFAST_TOKEN.",
    ),
    click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A file with the token, mode 0600. [HOLDFAST_TOKEN_FILE]",
    ),
    click.option(
        "--ca-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="PEM with the authority of the proxies' certificates. [HOLDFAST_CA_FILE]",
    ),
    click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Of a `holdfast up`. [default: ~/.local/state/holdfast]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0.1, 600),
        default=_TIMEOUT,
        show_default=True,
        help="Seconds for one proxy to answer.",
    ),
)


def cluster_options(command: _F) -> _F:
    """Adds the options; the command gets ``client``."""

    @wraps(command)
    def with_client(*args: Any, **values: Any) -> Any:
        # Not at the top: `holdfast --help` needs no HTTP.
        from .client import Client
        from .site import Given, find_site

        timeout = values.pop("timeout")
        names = ("urls", "token", "token_file", "ca_file", "state_dir")
        given = Given(**{name: values.pop(name) for name in names})
        client = Client(find_site(given, os.environ), timeout=timeout)
        return command(*args, client=client, **values)

    for option in reversed(_OPTIONS):
        with_client = option(with_client)
    return with_client  # type: ignore[return-value]  # wraps keeps what click needs of it


def output_options(command: _F) -> _F:
    """Adds ``--json`` and ``--watch``; the command gets ``as_json`` and ``watch`` (seconds)."""
    watch = click.option(
        "--watch",
        is_flag=False,
        flag_value="2",
        type=click.FloatRange(0.2, 3600),
        metavar="[SECONDS]",
        help="Again and again until Ctrl-C; every 2 seconds by default.",
    )
    return json_option(watch(command))


def json_option(command: _F) -> _F:
    """Adds ``--json``; the command gets ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="For programs.")(command)
