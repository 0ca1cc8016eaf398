"""Ending everything that a state directory names, for when no launcher is there to do it.

It knows the state directory and processes; it must not need a launcher, a proxy or a network
beyond the keepers' own ports. Keepers are asked first, with the token that they know, so that a
kernel gets its ordinary end; what has not ended then is killed, by pid *and* start time.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

from holdfast_launcher.agent.keeper_client import KeeperClient, KeeperSilent, KeeperStranger
from holdfast_launcher.engines.local import end_kernel_processes
from holdfast_launcher.environment import kernel_mark
from holdfast_launcher.errors import StaleToken
from holdfast_launcher.processes import wait_ended
from holdfast_launcher.state.keeper_files import EVIDENCE_FILE, read_keeper_file, read_launch_file
from holdfast_launcher.state.statefiles import read_json, write_json
from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import Token

_POLITE = 3.0
_FORCED = 5.0


async def end_kernels(kernels: Path) -> list[str]:
    """End every keeper and kernel below ``kernels`` and remove their directories.

    Answers the ids of those of which something is left; empty when all is proven gone.
    """
    client = KeeperClient(deadline=_POLITE)
    try:
        directories = await asyncio.to_thread(_directories, kernels)
        ended = await asyncio.gather(*(_end(path, client) for path in directories))
    finally:
        await client.close()
    return [path.name for path, gone in zip(directories, ended, strict=True) if not gone]


def _directories(kernels: Path) -> list[Path]:
    if not kernels.is_dir():
        return []
    return [path for path in sorted(kernels.iterdir()) if path.is_dir()]


async def _end(directory: Path, client: KeeperClient) -> bool:
    launched = read_launch_file(directory)
    if launched is not None and launched.this_boot and launched.process.running:
        await _ask(directory, client)
        left = await asyncio.to_thread(wait_ended, [launched.process], timeout=_POLITE)
        if left:
            # A launcher that runs must not take over what is ended here.
            evidence = {"nonce": launched.nonce, "reason": "it was ended by end-kernels"}
            await asyncio.to_thread(write_json, directory / EVIDENCE_FILE, evidence)
        for process in left:
            process.send(signal.SIGKILL)
        if await asyncio.to_thread(wait_ended, left, timeout=_FORCED):
            return False
    mark = "" if launched is None else kernel_mark(launched.kernel_id, launched.nonce)
    gone = await asyncio.to_thread(end_kernel_processes, directory, mark=mark, timeout=_FORCED)
    if gone:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    return gone


async def _ask(directory: Path, client: KeeperClient) -> None:
    file = read_keeper_file(directory)
    try:
        fence = Token.from_list((read_json(directory / "fence.json") or {}).get("fence"))
    except RecordError:  # no call was fenced yet
        fence = Token(0, 0)
    if file is None:
        return
    try:
        await client.shutdown(file, fence)
    except (KeeperSilent, KeeperStranger, StaleToken):
        return  # it is killed instead
