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
from pathlib import Path

from holdfast_launcher.state.statefiles import read_json
from holdfast_protocol.errors import InvalidState, RecordError
from holdfast_protocol.fencing import Acknowledged, Token

from .state_files import FENCE_FILE, write_atomic


class StaleToken(Exception):
    """A token below the highest acknowledged one; ``highest`` is that."""

    def __init__(self, highest: Token) -> None:
        super().__init__(f"the fencing token is stale; {highest} was seen")
        self.highest = highest


class Fence:
    """Reads what was acknowledged from ``directory`` and keeps it there."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FENCE_FILE
        self._acknowledged = Acknowledged(_load(self._path))
        self._writing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Fence {self.highest}>"

    @property
    def highest(self) -> Token:
        return self._acknowledged.token

    def check(self, token: Token) -> None:
        """Raises StaleToken when ``token`` may not act now."""
        self._offer(token)

    async def acknowledge(self, token: Token) -> None:
        """Make ``token`` the highest, on disk. Raises StaleToken, or OSError (then not done)."""
        async with self._writing:
            raised = self._offer(token)
            if raised == self._acknowledged:
                return
            value = {"fence": token.as_list()}
            # fsync may take long; other connections must go on meanwhile
            await asyncio.to_thread(write_atomic, self._path, value, durable=True)
            self._acknowledged = raised

    def _offer(self, token: Token) -> Acknowledged:
        try:
            return self._acknowledged.offer(token)
        except InvalidState:
            raise StaleToken(self.highest) from None


def _load(path: Path) -> Token:
    if not path.exists():
        return Token(0, 0)
    try:
        return Token.from_list((read_json(path) or {}).get("fence"))
    except RecordError as error:
        # Forgetting a fence would let a stale proxy act: better no keeper than that.
        raise ValueError(f"{path} cannot be read as a fence: {error}") from error
