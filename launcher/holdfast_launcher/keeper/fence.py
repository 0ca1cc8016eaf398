"""The highest fencing token that this keeper has acknowledged, kept on disk.

Safety rule (DESIGN promise 3). *Once a token is acknowledged, no call with a lower one takes
effect, not even after the keeper was killed.* The order of steps keeps it: a higher token is
on disk (fsync of file and directory) before ``acknowledge`` returns, so before anybody is told
so and before the call that carried it does anything; and ``check`` is asked again, without an
await in between, at the moment of effect.

Rejected: keeping it in keeper.json (rewritten often and without fsync).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from holdfast_launcher.statefiles import read_json

from .state_files import FENCE_FILE, write_atomic


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """A fencing token: etcd era, then the revision of the winning claim. Ordered by both."""

    era: int
    revision: int

    @classmethod
    def parse(cls, text: str) -> Token:
        """From ``<era>.<revision>``. Raises ValueError."""
        era, dot, revision = text.partition(".")
        if not (dot and era.isascii() and era.isdigit()):
            raise ValueError(f"not a fencing token: {text[:80]!r}")
        if not (revision.isascii() and revision.isdigit()) or len(text) > 80:
            raise ValueError(f"not a fencing token: {text[:80]!r}")
        return cls(int(era), int(revision))

    def as_list(self) -> list[int]:
        return [self.era, self.revision]


class StaleToken(Exception):
    """A token below the highest acknowledged one; ``highest`` is that."""

    def __init__(self, highest: Token) -> None:
        super().__init__(f"the fencing token is stale; {highest.era}.{highest.revision} was seen")
        self.highest = highest


class Fence:
    """Reads what was acknowledged from ``directory`` and keeps it there."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FENCE_FILE
        self._highest = _load(self._path)
        self._writing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Fence {self._highest.era}.{self._highest.revision}>"

    @property
    def highest(self) -> Token:
        return self._highest

    def check(self, token: Token) -> None:
        """Raises StaleToken when ``token`` may not act now."""
        if token < self._highest:
            raise StaleToken(self._highest)

    async def acknowledge(self, token: Token) -> None:
        """Make ``token`` the highest, on disk. Raises StaleToken, or OSError (then not done)."""
        async with self._writing:
            self.check(token)
            if token == self._highest:
                return
            value = {"fence": token.as_list()}
            # fsync may take long; other connections must go on meanwhile
            await asyncio.to_thread(write_atomic, self._path, value, durable=True)
            self._highest = token


def _load(path: Path) -> Token:
    if not path.exists():
        return Token(0, 0)
    value = read_json(path)
    try:
        if value is None:
            raise ValueError("no JSON object")
        era, revision = value["fence"]
        return Token(int(era), int(revision))
    except (KeyError, TypeError, ValueError) as error:
        # Forgetting a fence would let a stale proxy act: better no keeper than that.
        raise ValueError(f"{path} cannot be read as a fence: {error}") from error
