"""Writes ``activity.json`` and keeps ``keeper.json`` true, on change, at most once a second.

The launcher reads both; it is not called, so that neither needs the other to be alive.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from holdfast_launcher.state.statefiles import read_json

from .state_files import ACTIVITY_FILE, KEEPER_FILE, start_time, write_atomic

_log = structlog.get_logger(__name__)

INTERVAL = 1.0


class StateWriter:
    """``activity`` yields what activity.json holds; ``kernel_pid`` the kernel's pid or None."""

    def __init__(
        self,
        directory: Path,
        *,
        identity: dict[str, Any],
        activity: Callable[[], dict[str, Any]],
        kernel_pid: Callable[[], int | None],
    ) -> None:
        self._directory = directory
        self._activity = activity
        self._kernel_pid = kernel_pid
        self._changed = asyncio.Event()
        self._written: dict[str, Any] = {}
        self._keeper: dict[str, Any] = identity | {"kernel": None}

    def __repr__(self) -> str:
        return f"<StateWriter {self._directory}>"

    def changed(self) -> None:
        """Something in them may differ now. Cheap: called for every message."""
        self._changed.set()

    def write_new_kernel(self) -> None:
        """Write at once when there is another kernel process than keeper.json names.

        Whoever replaces a keeper that dies in this very second must find the kernel.
        """
        pid = self._kernel_pid()
        known = self._keeper["kernel"]
        if pid is None or (known is not None and known["pid"] == pid):
            return
        try:
            self.write_now()
        except OSError as error:
            _log.warning("state.not_written", error=str(error))

    def write_now(self, *, durable: bool = False, keep_kernel: bool = False) -> None:
        """Write both. ``keep_kernel``: the kernel that the old keeper.json names still lives,
        and nobody has taken it over yet. Raises OSError."""
        pid = self._kernel_pid()
        if pid is not None:
            self._keeper["kernel"] = _kernel(pid)
        elif keep_kernel:
            old = read_json(self._directory / KEEPER_FILE) or {}
            self._keeper["kernel"] = old.get("kernel")
        else:
            self._keeper["kernel"] = None
        self._write(KEEPER_FILE, self._keeper, durable=durable)
        self._write(ACTIVITY_FILE, self._activity(), durable=False)

    async def run(self) -> None:
        """Write on change until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                self.write_now(keep_kernel=self._kernel_pid() is None and _is_alive(self._keeper))
            except OSError as error:
                _log.warning("state.not_written", error=str(error))
            await asyncio.sleep(INTERVAL)

    def _write(self, name: str, value: dict[str, Any], *, durable: bool) -> None:
        if self._written.get(name) != value:
            write_atomic(self._directory / name, value, durable=durable)
            self._written[name] = dict(value)


def _kernel(pid: int) -> dict[str, Any] | None:
    """What names the kernel's process for good; None when it is gone already."""
    started = start_time(pid)
    if started is None:
        return None
    try:
        group = os.getpgid(pid)
    except OSError:
        return None
    return {"pid": pid, "pgid": group, "start_time": started}


def _is_alive(keeper: dict[str, Any]) -> bool:
    kernel = keeper.get("kernel")
    return kernel is not None and start_time(kernel["pid"]) == kernel["start_time"]
