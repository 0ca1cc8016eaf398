"""``python -m holdfast_launcher.engines.remote``: a keeper on a machine without a launcher.

Reads its order from standard input, claims the start from the launcher and becomes the keeper.
Every process that any engine starts for a kernel comes through here, so a job that is started
twice, or that nobody wants any more, ends here before there is a kernel. Status 0: this start was
not wanted; 75 (sysexits.h EX_TEMPFAIL): its launcher could not be reached.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from signal import Signals
from typing import Any, Final

from holdfast_launcher.engines.remote.place import address_towards, settle_config
from holdfast_launcher.engines.remote.reporting import (
    LauncherAway,
    Line,
    NotWanted,
    Order,
    wait_keeper_file,
)
from holdfast_launcher.engines.remote.terms import Terms
from holdfast_launcher.keeper.companion import Companion, Foreseen
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.keeper.log.quota import QUOTA_FILE
from holdfast_launcher.state.statefiles import make_private_directory, write_private

_EX_TEMPFAIL: Final = 75
_EX_USAGE: Final = 64


class LauncherLine(Companion):
    """Tells the launcher that the keeper is there and what its kernel does."""

    def __init__(self, line: Line, config: KeeperConfig, terms: Terms) -> None:
        self._line = line
        self._config = config
        self._terms = terms

    def __repr__(self) -> str:
        return f"LauncherLine({self._line!r})"

    async def run(self) -> None:
        keeper = await wait_keeper_file(self._config.directory)
        await self._line.ready(keeper)
        await self._line.report(self._config.directory, self._config.credential)

    def foresee(self, number: Signals) -> Foreseen | None:
        return self._terms.foresee(number)


def main() -> int:
    """Be the keeper of the order on standard input; returns the exit status."""
    try:
        order = Order.parse(sys.stdin.read())
    except ValueError as error:
        _say(f"no order on standard input: {error}")
        return _EX_USAGE
    terms = Terms.begin(order)
    line = Line(order, incarnation=secrets.token_hex(16))
    try:
        config = asyncio.run(line.claim(_identity()))
    except NotWanted as error:
        _say(f"this start is not wanted, ending: {error}")
        return 0
    except LauncherAway as error:
        _say(f"the launcher cannot be reached from {socket.gethostname()}: {error}")
        return _EX_TEMPFAIL
    directory = _directory(order)
    try:
        make_private_directory(directory / "logs")
        write_private(directory / "logs" / QUOTA_FILE, b"%d" % config.log_disk_bytes)
        config = settle_config(
            config,
            order,
            directory=directory / "keeper",
            address=address_towards(order.url),
            environment=os.environ,
            personal=_personal(),
        )
        return _keep(config, LauncherLine(line, config, terms))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _keep(config: KeeperConfig, companion: Companion) -> int:
    from holdfast_launcher.keeper.main import run

    return run(config, companion=companion)


def _identity() -> dict[str, Any]:
    job = os.environ.get("SLURM_JOB_ID")
    return {"host": socket.gethostname(), "pid": os.getpid(), "job": job}


def _personal() -> dict[str, str]:
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:  # a user of a directory service that this machine does not ask
        return {}
    return {
        "HOME": entry.pw_dir,
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": entry.pw_shell,
    }


def _directory(order: Order) -> Path:
    """A new directory of this process's own; another start of the same job has another."""
    base = Path(order.directory or tempfile.gettempdir())
    base.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"holdfast-{order.kernel_id[:8]}-", dir=base))


def _say(text: str) -> None:
    print(f"holdfast: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
