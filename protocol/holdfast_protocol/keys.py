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
        return f"{self.prefix}config"

    @property
    def leader(self) -> str:
        return f"{self.prefix}leader"

    def of(self, kind: Kind, name: str) -> str:
        """The key of one thing. Raises ValueError when ``name`` is empty or has a slash."""
        if not name or "/" in name:
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
        if kind is None or not slash or not name or "/" in name:
            return None
        return kind, name
