"""Finding the keepers that lived through the launcher's own restart.

A keeper is ours only if its pid *and* its start time are those that it wrote itself, in this
boot of the machine, *and* it answers a credentialed call with its nonce. The first two are known
at once, without waiting, and decide between living and dead; the third decides whether we speak
for it, and is asked again for as long as the process lives: slow or stopped is not dead.

It knows state directories, the engine's evidence and the keeper client; it must not know fences
or HTTP serving.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from holdfast_launcher.agent.incarnation import Incarnation, Phase
from holdfast_launcher.agent.keeper_client import KeeperClient, KeeperSilent, KeeperStranger
from holdfast_launcher.engines.contract import Engine
from holdfast_launcher.processes import ProcessId
from holdfast_launcher.state.keeper_files import (
    EVIDENCE_FILE,
    KeeperFile,
    read_keeper_file,
    read_launch_file,
)
from holdfast_launcher.state.statefiles import read_json

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Scan:
    """``empty``: directories in which no keeper ever began."""

    found: tuple[Incarnation, ...]
    empty: tuple[Path, ...]


async def scan(kernels: Path, engine: Engine, *, known: frozenset[str] = frozenset()) -> Scan:
    """Every incarnation on disk that is not in ``known``, alive or dead; asks no keeper yet."""
    found = []
    empty = []
    for directory in await asyncio.to_thread(_directories, kernels):
        if directory.name in known:
            continue
        incarnation = await _find(directory, engine)
        if incarnation is None:
            empty.append(directory)
        else:
            found.append(incarnation)
    return Scan(tuple(found), tuple(empty))


async def recognise(
    incarnation: Incarnation, client: KeeperClient, *, start_timeout: float
) -> None:
    """Bring an ADOPTING incarnation to ALIVE or DISPUTED; returns also when it died meanwhile.

    One that has no keeper.json after ``start_timeout`` seconds is killed: its start was never
    answered, so nobody counts on it, and its kernel was never started.
    """
    keeper = incarnation.keeper
    if incarnation.file is None:
        await _wait_file(incarnation, timeout=start_timeout)
    if incarnation.keeper is not keeper:  # it fell, and another one takes over
        return
    file = incarnation.file
    if file is None:
        if keeper is not None and incarnation.alive:
            _log.warning("keeper never became ready", kernel_id=incarnation.kernel_id)
            keeper.kill()
        return
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(KeeperSilent),
        wait=wait_random_exponential(multiplier=0.1, max=5.0),
        before_sleep=lambda state: _log_silence(incarnation, state.attempt_number),
    )
    try:
        async for attempt in retrying:
            with attempt:
                # killed, ended or replaced meanwhile: nothing to ask
                if incarnation.alive and incarnation.keeper is keeper:
                    await client.recognise(file)
    except KeeperStranger as error:
        if incarnation.alive and incarnation.keeper is keeper:
            incarnation.phase = Phase.DISPUTED
            incarnation.reason = f"at the keeper's address something else answers: {error}"
            _log.error("keeper disputed", kernel_id=incarnation.kernel_id, error=str(error))
        return
    if incarnation.phase is Phase.ADOPTING and incarnation.keeper is keeper:
        incarnation.phase = Phase.ALIVE
        _log.info(
            "keeper adopted",
            kernel_id=incarnation.kernel_id,
            keeper=incarnation.handle("")["engine_handle"],
        )


def _log_silence(incarnation: Incarnation, attempt: int) -> None:
    if attempt in (3, 10):  # once that it is slow, once that it stays so
        _log.warning("keeper does not answer yet", kernel_id=incarnation.kernel_id)


def _directories(kernels: Path) -> list[Path]:
    return [path for path in sorted(kernels.iterdir()) if path.is_dir()]


async def _find(directory: Path, engine: Engine) -> Incarnation | None:
    launched = read_launch_file(directory)
    evidence = read_json(directory / EVIDENCE_FILE)
    if launched is None and evidence is None:
        return None
    nonce = launched.nonce if launched is not None else str((evidence or {}).get("nonce"))
    incarnation = Incarnation(kernel_id=directory.name, nonce=nonce, directory=directory)
    file = _own_file(incarnation)
    if file is not None:
        incarnation.take_file(file)
    kept = read_keeper_file(directory)
    incarnation.begun = kept is not None and kept.nonce == nonce  # also of the keeper before
    incarnation.keeper = await engine.find(directory)
    if incarnation.keeper is not None:
        incarnation.phase = Phase.ADOPTING
        return incarnation
    incarnation.phase = Phase.DEAD
    incarnation.reason = _reason(incarnation, evidence)
    return incarnation


def _own_file(incarnation: Incarnation) -> KeeperFile | None:
    """keeper.json, unless another incarnation left it, or a keeper that this one replaces."""
    file = read_keeper_file(incarnation.directory)
    launched = read_launch_file(incarnation.directory)
    if file is None or file.nonce != incarnation.nonce:
        return None
    if launched is not None and launched.process != ProcessId(file.pid, file.start_time):
        return None
    return file


def _reason(incarnation: Incarnation, evidence: dict[str, Any] | None) -> str:
    if evidence is not None and isinstance(evidence.get("reason"), str):
        return str(evidence["reason"])
    launched = read_launch_file(incarnation.directory)
    if launched is not None and not launched.this_boot:
        return "the machine was restarted"
    said = incarnation.activity.read().reason
    gone = "the keeper ended while its launcher was away"
    return f"{said}; {gone}" if said else gone


async def _wait_file(incarnation: Incarnation, *, timeout: float) -> None:
    deadline = asyncio.get_running_loop().time() + timeout
    delay = 0.02
    keeper = incarnation.keeper
    while (
        incarnation.alive
        and incarnation.keeper is keeper
        and asyncio.get_running_loop().time() < deadline
    ):
        file = _own_file(incarnation)
        if file is not None:
            incarnation.take_file(file)
            return
        # Its ready pipe died with the launcher that started it; this is a rare, short wait.
        if keeper is not None:
            await keeper.wait_gone(timeout=delay)
        delay = min(delay * 2, 1.0)
