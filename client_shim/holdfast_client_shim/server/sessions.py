"""jupyter_server's session manager, whose rows outlive the server.

jupyter_server can keep its rows in a file, but then knows nothing of the kernels they name, and
discards them at the first look. Here both come back together.
"""

# jupyter_server's managers have few annotations:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any, Final

from jupyter_server.gateway.managers import GatewaySessionManager

from .client import HoldfastGatewayClient
from .state import SessionRow

#: How long the first list of sessions waits to know which kernels of the last run still live.
CHECKED_WITHIN: Final = 3.0


class HoldfastSessionManager(GatewaySessionManager):
    """Sessions that are remembered."""

    def rows(self) -> list[SessionRow]:
        """All rows. What a client gave that is no text is text here: jupyter_server stores any
        JSON, and the state's file is believed only as a whole."""
        found = self.cursor.execute("SELECT session_id, path, name, type, kernel_id FROM session")
        return [
            SessionRow(str(id_), _text(path), _text(name), _text(kind), str(kernel_id))
            for id_, path, name, kind, kernel_id in found.fetchall()
        ]

    def adopt(self, rows: list[SessionRow]) -> None:
        """Take in rows of the last run; those that the database still has are not doubled."""
        have = {row.session_id for row in self.rows()}
        self.cursor.executemany(
            "INSERT INTO session VALUES (?,?,?,?,?)",
            [
                (row.session_id, row.path, row.name, row.type, row.kernel_id)
                for row in rows
                if row.session_id not in have
            ],
        )

    async def list_sessions(self) -> Any:
        """As jupyter_server's, once it is known which kernels there are."""
        memory = _memory()
        if memory is not None:
            await memory.wait_checked(CHECKED_WITHIN)
        return await super().list_sessions()

    async def save_session(self, *args: Any, **kwargs: Any) -> Any:
        """As jupyter_server's; the row is on the disk before the answer."""
        model = await super().save_session(*args, **kwargs)
        await self._settle()
        return model

    async def update_session(self, *args: Any, **kwargs: Any) -> None:
        """As jupyter_server's; the change is on the disk before the answer."""
        await super().update_session(*args, **kwargs)
        await self._settle()

    async def delete_session(self, *args: Any, **kwargs: Any) -> None:
        """As jupyter_server's; the row is gone from the disk before the answer."""
        await super().delete_session(*args, **kwargs)
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        memory = _memory()
        if memory is not None:
            await memory.settle()


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _memory() -> Any:
    return HoldfastGatewayClient.instance().memory
