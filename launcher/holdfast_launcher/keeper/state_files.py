"""The files by which a keeper is found, and found again: atomic, private, small.

A reader sees the old file or the new one, never half of one: each is written beside its place
and renamed over it. This module knows nothing of what the files say. Rejected: one database
file (a launcher of another version reads these, and a person with ``cat`` does too).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from holdfast_launcher.state.statefiles import write_private

KEEPER_FILE = "keeper.json"
FENCE_FILE = "fence.json"
ACTIVITY_FILE = "activity.json"


def prepare_directory(directory: Path) -> None:
    """Create the state directory, readable by its owner alone; tighten one that is not."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def write_atomic(path: Path, value: Any, *, durable: bool) -> None:
    """Replace ``path`` by the JSON of ``value``, mode 0600.

    ``durable``: it is on the disk, name included, before this returns; costs two fsyncs.
    Raises OSError; the old file is then still whole.
    """
    write_private(path, msgspec.json.encode(value), durable=durable)


def start_time(pid: int) -> int | None:
    """When process ``pid`` started, in clock ticks since boot (field 22 of proc(5) ``stat``).

    With the pid it names one process for good, whatever the wall clock does. None: no such
    process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the command name may hold spaces and parentheses; what follows the last one does not
    return int(stat.rpartition(")")[2].split()[19])
