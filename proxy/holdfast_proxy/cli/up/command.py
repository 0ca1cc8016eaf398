"""`holdfast up`: options in, a running tree until a signal comes.

Heavy imports wait until the command is called, so that `holdfast --help` answers at once.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from .state_dir import StateDir, StateDirBusy, default_state_dir

_DEFAULT_PORT = 8900


@click.command()
@click.option("--proxies", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--launchers", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=_DEFAULT_PORT,
    show_default=True,
    help="The first port; the others follow it. 0: free ones.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept. [default: ~/.local/state/holdfast]",
)
@click.option(
    "--token",
    envvar="HOLDFAST_TOKEN",
    help="What clients must know. Others on this machine can read a command line: "
    "HOLDFAST_TOKEN does the same, and by default one is made and kept.",
)
@click.option("--no-lab", is_flag=True, help="Without JupyterLab.")
@click.option("--keep-kernels", is_flag=True, help="Let kernels live when this ends.")
@click.option(
    "--root-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Where the notebooks are. [default: the present directory]",
)
def up(
    proxies: int,
    launchers: int,
    port: int,
    state_dir: Path | None,
    token: str | None,
    no_lab: bool,
    keep_kernels: bool,
    root_dir: Path,
) -> None:
    """Run etcd, proxies, launchers and JupyterLab on this machine until Ctrl-C."""
    from .etcd_binary import NoEtcd
    from .plan import UpOptions
    from .ports import PortTaken
    from .session import run

    options = UpOptions(
        proxies=proxies,
        launchers=launchers,
        port=port,
        state_dir=state_dir or default_state_dir(),
        token=token,
        lab=not no_lab,
        keep_kernels=keep_kernels,
        root_dir=root_dir.resolve(),
    )
    try:
        with StateDir(options.state_dir) as state:
            code = asyncio.run(run(options, state, click.echo))
    except (StateDirBusy, NoEtcd, PortTaken, OSError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)
