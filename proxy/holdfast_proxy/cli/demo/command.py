"""`holdfast demo`: options in, a verdict out.

Exit codes: 0 nothing was lost or doubled; 1 something was; 2 usage; 4 it could not start; 130
stopped by a signal. With ``--against`` the code is about Holdfast alone. Heavy imports wait until
the command is called.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .session import DemoOptions, Result

OK, LOST, CANNOT_START, STOPPED = 0, 1, 4, 130
_SIGNALS = {
    "KILL": signal.SIGKILL,
    "TERM": signal.SIGTERM,
    "STOP": signal.SIGSTOP,
}
#: What the demo starts, and the extra that brings it.
_NEEDED = {
    "holdfast_launcher": "launcher",
    "holdfast_client_shim": "shim",
    "jupyter_server": "shim",
    "ipykernel": "all",
}


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(6, 3600),
    default=60,
    show_default=True,
    help="How long the notebook runs, about.",
)
@click.option("--proxies", type=click.IntRange(1, 16), default=2, show_default=True)
@click.option(
    "--every",
    type=click.FloatRange(2, 600),
    default=5,
    show_default=True,
    help="Seconds between two kills.",
)
@click.option("--seed", type=int, help="Irregular pauses, the same ones for the same number.")
@click.option(
    "--signal",
    "how",
    type=click.Choice(list(_SIGNALS), case_sensitive=False),
    default="KILL",
    show_default=True,
    help="KILL: at once. TERM: it may hand over. STOP: it freezes for four seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="The verdict for a program.")
@click.option("--keep", is_flag=True, help="Keep logs, data and secrets of all processes.")
@click.option(
    "--against",
    type=click.Choice(["kernel-gateway"]),
    help="Afterwards the same with Kernel Gateway, side by side.",
)
def demo(
    seconds: float,
    proxies: int,
    every: float,
    seed: int | None,
    how: str,
    as_json: bool,
    keep: bool,
    against: str | None,
) -> None:
    """Run a notebook while its proxies are killed, and count what arrives.

    Starts etcd, proxies, a launcher and a Jupyter Server of its own on free ports, and ends them
    all. Exits with 0 only if nothing was lost and nothing came twice.
    """
    from .schedule import kill_times
    from .session import DemoOptions

    if not kill_times(seconds=seconds, every=every, seed=seed):
        raise click.UsageError("no kill fits into that time: longer --seconds or shorter --every")
    _require(against)
    options = DemoOptions(
        seconds=seconds,
        proxies=proxies,
        every=every,
        seed=seed,
        how=_SIGNALS[how.upper()],
        keep=keep,
        against_kernel_gateway=against is not None,
    )
    sys.exit(_run(options, as_json))


def _run(options: DemoOptions, as_json: bool) -> int:
    from rich.console import Console

    from ..up.etcd_binary import NoEtcd
    from ..up.ports import PortTaken
    from .session import CannotStart, run

    console = Console(stderr=True, highlight=False)
    try:
        result = asyncio.run(run(options, console))
    except (CannotStart, NoEtcd, PortTaken, OSError) as error:
        click.echo(f"holdfast demo cannot start: {error}", err=True)
        return CANNOT_START
    code = exit_code(result)
    _report(result, as_json=as_json, code=code)
    if result.peer_trouble:
        click.echo(f"Kernel Gateway could not be compared: {result.peer_trouble}", err=True)
    return code


def exit_code(result: Result) -> int:
    """What the shell is told."""
    if result.interrupted:
        return STOPPED
    if result.peer_trouble:
        return CANNOT_START
    return OK if result.columns and result.columns[0].verdict.ok else LOST


def _report(result: Result, *, as_json: bool, code: int) -> None:
    """The verdict, on standard output."""
    from rich.console import Console

    from .display import closing, to_json, verdict_table

    if as_json:
        said = {
            "exit_code": code,
            "runs": [to_json(column) for column in result.columns],
            "notebooks": [str(path) for path in result.notebooks],
            "folder": str(result.folder) if result.folder else None,
        }
        click.echo(json.dumps(said, indent=2))
        return
    out = Console(highlight=False)
    if not result.columns:
        out.print("Stopped before the notebook ran.")
        return
    out.print(verdict_table(result.columns))
    for column in result.columns:
        out.print(closing(column))
    out.print()
    for path in result.notebooks:
        out.print(f"The executed notebook: {path}", soft_wrap=True)
    if result.folder is not None:
        out.print(f"Logs and data: {result.folder}", soft_wrap=True)


def _require(against: str | None) -> None:
    """Say what to install before anything is started."""
    for module, extra in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            _missing(f'{module} is missing: pip install "holdfast[{extra}]"')
    if against is not None:
        from .kernel_gateway import PACKAGE, TESTED, is_installed

        if not is_installed():
            _missing(f'Kernel Gateway is missing: pip install "{PACKAGE}=={TESTED}"')


def _missing(text: str) -> None:
    click.echo(f"holdfast demo cannot start: {text}", err=True)
    sys.exit(CANNOT_START)
