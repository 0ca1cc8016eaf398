"""The key layout in etcd: ``/holdfast/<cluster>/v1/…``, written down once.

Knows names only. Ids must not contain a slash; ``parse`` answers None for a key that is not of
this layout, so that a newer version's kinds of keys pass by unharmed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The first part of a key below the prefix."""

    PROXY = "proxies"
    OWNER = "owners"
    LAUNCHER = "launchers"
    ACTIVITY = "activity"
    CREDENTIAL = "credentials"
    KERNEL = "kernels"
    SESSION = "sessions"
    EVENT = "events"
    LEADER = "leader"
    CONFIG = "config"


#: One key each, which has no name below it.
SINGLE = frozenset({Kind.LEADER, Kind.CONFIG})

_BY_NAME = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Keys:
    """Makes and reads the keys of one cluster."""

    cluster: str

    @property
    def prefix(self) -> str:
        return f"/holdfast/{self.cluster}/v1/"

    @property
    def config(self) -> str:
        return f"{self.prefix}{Kind.CONFIG.value}"

    @property
    def leader(self) -> str:
        return f"{self.prefix}{Kind.LEADER.value}"

    def of(self, kind: Kind, name: str) -> str:
        """The key of one thing; of a single key the name is its kind's. Raises ValueError for
        another one, and when ``name`` is empty or has a slash."""
        if kind in SINGLE and name == kind.value:
            return f"{self.prefix}{name}"
        if kind in SINGLE or not name or "/" in name:
            raise ValueError(f"{name!r} cannot name one of {kind.value}")
        return f"{self.prefix}{kind.value}/{name}"

    def all_of(self, kind: Kind) -> str:
        """The prefix of all things of one kind."""
        return f"{self.prefix}{kind.value}/"

    def parse(self, key: str) -> tuple[Kind, str] | None:
        """(kind, name), or None for anything else."""
        if not key.startswith(self.prefix):
            return None
        word, slash, name = key[len(self.prefix) :].partition("/")
        kind = _BY_NAME.get(word)
        if kind in SINGLE:
            return None if slash else (kind, word)
        if kind is None or not slash or not name or "/" in name:
            return None
        return kind, name
