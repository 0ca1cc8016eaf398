"""When a keeper has fallen and its kernel has not: who takes over, and whether anybody may.

The decision is made from what is on disk and from the process itself; nothing is started here
but the one keeper that ``launch_keeper`` is asked for. It knows the files of a kernel's state
directory and the engine; it must not know fences, locks or HTTP.

Invariant: a kernel is taken over only when it is proven to live (pid *and* start time, in this
boot), its death was told to nobody (no evidence file), and the budget of takeovers has room.
Whatever is not taken over is ended. Rejected: telling the environment of a successor from
``/proc/<kernel>/environ`` (a program may write over it); it is in ``config.json`` (0600), beside
keeper.json, whose credential is worth as much.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from holdfast_launcher.engines.contract import Engine, Keeper, LaunchFailed
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.processes import ProcessId
from holdfast_launcher.state.keeper_files import (
    EVIDENCE_FILE,
    KEEPER_FILE,
    KeeperFile,
    read_keeper_file,
    read_launch_file,
)
from holdfast_launcher.state.statefiles import read_json, write_json, write_private

#: What the keeper was told, for the one that follows it.
CONFIG_FILE = "config.json"
TAKEOVERS_FILE = "takeovers.json"
#: A keeper that falls again and again takes more from its user than it gives.
TAKEOVERS = 3
TAKEOVER_SECONDS = 600.0

_FORCED = 5.0


class DiskRefuses(LaunchFailed):
    """What a keeper is to be told could not be written: nothing was tried that could fail."""


@dataclass(slots=True)
class TakeoverBudget:
    """At most ``limit`` takeovers in any ``seconds``; ``now`` is any steady clock's, in seconds."""

    limit: int = TAKEOVERS
    seconds: float = TAKEOVER_SECONDS
    _spent: deque[float] = field(default_factory=deque, init=False)

    @property
    def spent(self) -> tuple[float, ...]:
        """When those that still count were."""
        return tuple(self._spent)

    def recall(self, spent: Iterable[float]) -> None:
        """Takeovers that another launcher before us noted."""
        self._spent = deque(sorted({*self._spent, *spent}))

    def spend(self, now: float) -> bool:
        """Take one; False when there is none left."""
        while self._spent and now - self._spent[0] >= self.seconds:
            self._spent.popleft()
        if len(self._spent) >= self.limit:
            return False
        self._spent.append(now)
        return True


def take_turn(directory: Path, budget: TakeoverBudget, now: float) -> bool:
    """Spend one takeover; False when there is none left. ``now``: CLOCK_BOOTTIME, in seconds.

    They are noted on disk first: a launcher that falls with its keepers would otherwise begin to
    count anew each time. Those of another boot are nobody's: nothing is taken over from there.
    """
    noted = (read_json(directory / TAKEOVERS_FILE) or {}).get("at")
    if isinstance(noted, list):
        budget.recall(at for at in noted if isinstance(at, int | float) and at <= now)
    if not budget.spend(now):
        return False
    with contextlib.suppress(OSError):  # a full disk; we know it ourselves for as long as we live
        write_json(directory / TAKEOVERS_FILE, {"at": list(budget.spent)})
    return True


def find_successor(directory: Path, *, nonce: str) -> KeeperConfig | None:
    """What to tell a keeper that takes over the kernel in ``directory``; None: end the kernel."""
    if (directory / EVIDENCE_FILE).exists():
        return None
    launched = read_launch_file(directory)
    if launched is None or launched.nonce != nonce or not launched.this_boot:
        return None
    kernel = living_kernel(directory)
    config = _read_config(directory)
    if kernel is None or config is None or config.nonce != nonce:
        return None
    return msgspec.structs.replace(config, adopt=True)


def living_kernel(directory: Path) -> ProcessId | None:
    """The kernel's process by the record that the next keeper goes by, if it lives."""
    record = read_json(directory / "kernel" / "incarnation.json") or {}
    match record.get("pid"), record.get("start_time"):
        case [int(pid), int(start_time)]:
            process = ProcessId(pid, start_time)
            return process if process.running else None
    return None


async def launch_keeper(engine: Engine, config: KeeperConfig) -> tuple[Keeper, KeeperFile]:
    """Launch a keeper and read what it says of itself.

    Raises LaunchFailed (DiskRefuses); then no process of this launch is left.
    """
    directory = config.directory
    try:
        await asyncio.to_thread(write_private, directory / CONFIG_FILE, config.to_json())
    except OSError as error:
        raise DiskRefuses(f"{CONFIG_FILE} cannot be written: {error}") from error
    keeper = await engine.launch(config)
    file = read_keeper_file(directory)
    if file is None or file.nonce != config.nonce:
        keeper.kill()
        await keeper.wait_gone(timeout=_FORCED)
        raise LaunchFailed(f"the keeper left no usable {KEEPER_FILE}")
    return keeper, file


def _read_config(directory: Path) -> KeeperConfig | None:
    try:
        return KeeperConfig.from_json((directory / CONFIG_FILE).read_bytes())
    except (OSError, msgspec.DecodeError):  # also of a launcher of another version
        return None
