"""What is left below `holdfast up` at its end, and zombies that nobody else collects.

As a subreaper, `holdfast up` becomes the parent of every orphan of its children: terminals that
JupyterLab opened, a keeper whose launcher was killed. Zombies among them are collected while the
tree runs; at the end the living ones are ended, except the keepers and kernels that are to stay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import psutil


class OrphanReaper:
    """Collects zombies that no supervisor waits for. Call ``collect`` every second or so.

    A zombie is taken only when the look before saw it too: the child of a supervisor that is just
    about to wait for it must keep its exit status until then.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def collect(self, supervised: Collection[int]) -> None:
        zombies = {pid for pid in _zombie_children() if pid not in supervised}
        for pid in zombies & self._seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = zombies


def end_descendants(*, spare: Collection[int], timeout: float) -> list[int]:
    """SIGKILL every descendant of this process except ``spare`` and what is below those.

    Returns the pids that were ended. Blocks up to ``timeout`` seconds for them to be gone.
    """
    doomed = [process for process in _below(psutil.Process()) if not _spared(process, spare)]
    for process in doomed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    gone, _ = psutil.wait_procs(doomed, timeout=timeout)
    return [process.pid for process in gone]


def child_pids() -> frozenset[int]:
    """The children that this process has now."""
    return frozenset(child.pid for child in psutil.Process().children())


def keeper_pids(launcher_states: Iterable[Path]) -> set[int]:
    """The keepers and kernels that launchers' state directories name (``keeper.json``)."""
    pids: set[int] = set()
    for state in launcher_states:
        for file in state.rglob("keeper.json"):
            with suppress(OSError, ValueError):
                pids |= _pids_of(json.loads(file.read_text()))
    return pids


def _pids_of(said: object) -> set[int]:
    """Both pids of a keeper file, wherever it nests the kernel's."""
    if not isinstance(said, dict):
        return set()
    pids = {value for key, value in said.items() if key.endswith("pid") and isinstance(value, int)}
    kernel = said.get("kernel")
    return pids | (_pids_of(kernel) if isinstance(kernel, dict) else set())


def _zombie_children() -> list[int]:
    zombies = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                zombies.append(child.pid)
    return zombies


def _below(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def _spared(process: psutil.Process, spare: Collection[int]) -> bool:
    with suppress(psutil.NoSuchProcess):
        return any(relative.pid in spare for relative in (process, *process.parents()))
    return True  # gone meanwhile
