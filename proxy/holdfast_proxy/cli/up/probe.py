"""How to see that a child is ready: it said so in a file, or it answers HTTP.

A probe is asked again and again; it answers the child's address or None, and never raises for a
child that is merely not there yet. Ready files are better than a port that accepts: they name the
pid, so that the file of a predecessor proves nothing.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path

import aiohttp


class Probe(ABC):
    """Asked by the supervisor until it answers."""

    @abstractmethod
    def forget(self) -> None:
        """A new process is about to start: nothing from before counts any more."""

    @abstractmethod
    async def look(self, pid: int) -> str | None:
        """The URL of the ready process ``pid``, or None: not yet."""


class ReadyFile(Probe):
    """``{"id", "pid", "url"}``, which proxies and launchers write once they listen."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)

    async def look(self, pid: int) -> str | None:
        try:
            said = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(said, dict) or said.get("pid") != pid:
            return None
        return str(said["url"]).rstrip("/")


class HttpAnswer(Probe):
    """``path`` below ``url`` answers 200: for programs that are not ours (etcd, JupyterLab)."""

    def __init__(self, url: str, path: str, http: aiohttp.ClientSession) -> None:
        self._url, self._path, self._http = url, path, http

    def forget(self) -> None:
        """Nothing: the predecessor is dead, so what answers on its port is the new one."""

    async def look(self, pid: int) -> str | None:
        try:
            async with self._http.get(self._url + self._path) as answer:
                return self._url if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
