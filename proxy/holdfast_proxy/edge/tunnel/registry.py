"""The live tunnels of this proxy: their ids, and which keepers must hear of a drain.

Knows ids, endpoints and how to cut a connection; must not know what it carries. A tunnel is on
the list from before its keeper hears of it until both its legs are gone, so that a drain names
every connection that a keeper may have.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from ...cluster import KeeperEndpoint


@dataclass(eq=False, slots=True)
class TunnelEntry:
    """One connection to a keeper. ``abort`` cuts it; None while it is being made."""

    id: str
    endpoint: KeeperEndpoint
    abort: Callable[[], None] | None = None


class TunnelRegistry:
    """All connections of this proxy to keepers on behalf of clients."""

    def __init__(self, proxy_id: str) -> None:
        self._proxy_id = proxy_id
        self._numbers = itertools.count(1)
        self._entries: dict[str, TunnelEntry] = {}

    def __repr__(self) -> str:
        return f"<TunnelRegistry {self._proxy_id}: {len(self._entries)} live>"

    def __len__(self) -> int:
        return len(self._entries)

    def open(self, endpoint: KeeperEndpoint) -> TunnelEntry:
        """A new entry with an id of its own, ``<proxy_id>.<n>``."""
        entry = TunnelEntry(f"{self._proxy_id}.{next(self._numbers)}", endpoint)
        self._entries[entry.id] = entry
        return entry

    def close(self, entry: TunnelEntry) -> None:
        """Take an entry off. Idempotent."""
        self._entries.pop(entry.id, None)

    def by_keeper(self) -> dict[KeeperEndpoint, list[str]]:
        """The tunnel ids that each keeper has of us."""
        groups: dict[KeeperEndpoint, list[str]] = {}
        for entry in self._entries.values():
            groups.setdefault(entry.endpoint, []).append(entry.id)
        return groups

    def abort_all(self) -> None:
        """Cut what is left."""
        for entry in list(self._entries.values()):
            if entry.abort is not None:
                entry.abort()
