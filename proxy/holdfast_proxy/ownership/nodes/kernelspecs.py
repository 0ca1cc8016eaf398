"""The launchers' kernelspecs, fetched when their digest changes and merged for clients.

Kept in memory, so that a notebook server can still list kernels while a launcher or etcd is away.
Where two launchers have a kernelspec of one name, the first by launcher id is shown. Must not
know etcd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from holdfast_protocol.keys import Kind
from holdfast_protocol.records import LauncherRecord
from holdfast_proxy.errors import NotFound, Unavailable
from holdfast_proxy.ownership.background import SingleFlight, TaskSet
from holdfast_proxy.ownership.cache import Change, ClusterView
from holdfast_proxy.ownership.calls.launcher_client import (
    LauncherClient,
    LauncherError,
    LauncherRefused,
)
from holdfast_proxy.ownership.nodes.launchers import Launchers

_log = structlog.get_logger(__name__)

#: Resource files kept in memory; a logo has a few kB, and a set of specs a few dozen files.
_CACHED_FILES = 256


class Kernelspecs:
    """What each launcher can start."""

    def __init__(
        self,
        *,
        view: ClusterView,
        launchers: Launchers,
        client: LauncherClient,
        tasks: TaskSet,
    ) -> None:
        self._view = view
        self._launchers = launchers
        self._client = client
        self._fetches = SingleFlight(tasks)
        self._known: dict[str, tuple[str, dict[str, Any]]] = {}
        self._files: dict[tuple[str, str], tuple[bytes, str]] = {}
        view.listen(self._changed)

    def __repr__(self) -> str:
        return f"<Kernelspecs of {', '.join(sorted(self._known)) or 'no launcher'}>"

    def names(self, launcher_id: str) -> frozenset[str]:
        """What one launcher can start, as last fetched."""
        known = self._known.get(launcher_id)
        return frozenset() if known is None else frozenset(known[1]["kernelspecs"])

    def merged(self) -> Mapping[str, Any]:
        """Raises Unavailable before any launcher's were fetched."""
        if not self._known:
            raise Unavailable("no launcher has connected yet, so no kernel can be listed")
        specs: dict[str, Any] = {}
        default = None
        connected = [name for name in sorted(self._known) if name in self._view.launchers]
        for launcher_id in connected or sorted(self._known):
            model = self._known[launcher_id][1]
            default = default or model.get("default")
            specs = {**model["kernelspecs"], **specs}
        if default not in specs:
            default = next(iter(sorted(specs)), None)
        return {"default": default, "kernelspecs": specs}

    async def resource(self, name: str, path: str) -> tuple[bytes, str]:
        """A kernelspec's file. Raises NotFound, Unavailable."""
        cached = self._files.get((name, path))
        if cached is not None:
            return cached
        failure: Exception | None = None
        for launcher_id in sorted(self._known):
            if name not in self.names(launcher_id):
                continue
            try:
                found = await self._client.resource(self._launchers.target(launcher_id), name, path)
            except (LauncherError, Unavailable) as error:
                failure = error
                continue
            if len(self._files) >= _CACHED_FILES:
                self._files.pop(next(iter(self._files)))
            self._files[name, path] = found
            return found
        if failure is not None and not isinstance(failure, LauncherRefused):
            raise Unavailable(f"the file cannot be fetched now: {failure}")
        raise NotFound(f"kernel {name!r} has no file {path!r}")

    def refresh(self) -> None:
        """Fetch what differs from the launchers' digests; at start, and as they change."""
        for launcher_id, entry in self._view.launchers.items():
            self._look(launcher_id, entry.record)

    def _look(self, launcher_id: str, record: LauncherRecord) -> None:
        known = self._known.get(launcher_id)
        if known is None or known[0] != record.kernelspecs_digest:
            self._fetches.begin(launcher_id, lambda: self._fetch(launcher_id))

    async def _fetch(self, launcher_id: str) -> None:
        pause = 0.1
        while (entry := self._view.launchers.get(launcher_id)) is not None:
            digest = entry.record.kernelspecs_digest
            try:
                target = self._launchers.target(launcher_id)
                model = await self._client.kernelspecs(target)
                if not isinstance(model.get("kernelspecs"), dict):
                    raise LauncherError("not a kernelspecs model")
            except (LauncherError, Unavailable) as error:
                _log.warning("kernelspecs not fetched", launcher=launcher_id, error=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
                continue
            self._known[launcher_id] = (digest, model)
            self._files.clear()
            return

    def _changed(self, change: Change) -> None:
        if change.kind is Kind.LAUNCHER and change.after is not None:
            self._look(change.name, change.after.record)
