"""What this notebook server remembers over a restart of its own: takes it up, and keeps it.

At load, before the first request, it takes the kernels, the rows of ``/api/sessions`` and the
streams of the last run in, without asking anybody: the gateway may be away just then. Then it
asks, until it is answered; only a 404 makes it forget a kernel.
"""

# jupyter_server's managers have no annotations:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import cached_property
from logging import Logger
from typing import TYPE_CHECKING, Any, Final, Protocol

from tornado import web

from .bookkeeper import Bookkeeper
from .state import KernelRow, ServerState, SessionRow, Unreadable, decode, encode
from .state_file import Refused, StateFile, path_for

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from .client import HoldfastGatewayClient

#: Seconds between questions after kernels while no gateway answers.
ASK_AGAIN: Final = 1.0


class Kernels(Protocol):
    """What it needs of the kernel manager."""

    def rows(self) -> list[KernelRow]: ...
    def adopt(self, rows: list[KernelRow]) -> None: ...
    async def list_kernels(self) -> list[dict[str, Any]]: ...


class Sessions(Protocol):
    """What it needs of the session manager."""

    def rows(self) -> list[SessionRow]: ...
    def adopt(self, rows: list[SessionRow]) -> None: ...


class ServerMemory:
    """Made by ``recall``."""

    def __init__(
        self,
        file: StateFile,
        former: ServerState,
        *,
        client: HoldfastGatewayClient,
        kernels: Kernels,
        sessions: Sessions,
        log: Logger,
    ) -> None:
        self._file = file
        self._former = former
        self._client = client
        self._kernels = kernels
        self._sessions = sessions
        self._log = log
        self._checked = asyncio.Event()
        self._checking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ServerMemory {self._file!r}>"

    @cached_property
    def _book(self) -> Bookkeeper:
        return Bookkeeper(self._file, self._text, self._log)

    @property
    def was_holdfast(self) -> bool:
        """Whether the last run's gateways were Holdfast."""
        return self._former.holdfast

    def take_in(self) -> None:
        """Adopt what the last run had. Nobody is asked; no event loop is needed."""
        former = self._former
        known = {row.kernel_id for row in former.kernels}
        self._kernels.adopt(list(former.kernels))
        self._sessions.adopt([row for row in former.sessions if row.kernel_id in known])
        if known:
            self._log.info(
                "holdfast: kernels of the last run that belong to this server again: %s",
                ", ".join(sorted(known)),
            )

    def begin(self) -> None:
        """The event loop runs, and no request has been answered."""
        known = {row.kernel_id for row in self._former.kernels}
        self._client.streams.restore(
            record for record in self._former.streams if record.kernel_id in known
        )
        self._checking = asyncio.get_running_loop().create_task(self._check())

    def noted(self) -> None:
        """Something that is remembered changed."""
        self._book.noted()

    async def settle(self) -> None:
        """Return when what is now would survive this process and this machine."""
        await self._book.settle()

    async def wait_checked(self, timeout: float) -> None:
        """Return when the gateway was asked after the last run's kernels, or after ``timeout``
        seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._checked.wait(), timeout)

    def close(self) -> list[asyncio.Task[None]]:
        """The server stops: write a last time. Idempotent. Gives the tasks that are ending."""
        ending = self._book.close()
        if self._checking is not None:
            self._checking.cancel()
            ending.append(self._checking)
        return ending

    def _text(self) -> str:
        client = self._client
        return encode(
            ServerState(
                root_dir=self._former.root_dir,
                gateways=tuple(endpoint.name for endpoint in client.pool.endpoints),
                holdfast=client.is_holdfast or self._former.holdfast,
                kernels=tuple(self._kernels.rows()),
                sessions=tuple(self._sessions.rows()),
                streams=tuple(client.streams.records()),
            )
        )

    async def _check(self) -> None:
        while True:
            try:
                await self._kernels.list_kernels()
                break
            except (web.HTTPError, ValueError, KeyError, TypeError) as error:
                # the latter three: what answered with 200 is no gateway
                self._log.debug("holdfast: not yet known which kernels live: %s", error)
                await asyncio.sleep(ASK_AGAIN)
        self._checked.set()
        self.noted()


def recall(
    serverapp: ServerApp, client: HoldfastGatewayClient, kernels: Kernels, sessions: Sessions
) -> ServerMemory | str:
    """Find the memory of the last run with this root directory, and own it; or say why not."""
    log: Logger = serverapp.log
    root_dir = os.path.realpath(serverapp.root_dir)
    try:
        file = StateFile.own(path_for(serverapp.data_dir, root_dir), log)
    except Refused as refusal:
        return str(refusal)
    former = _read(file, root_dir)
    gateways = {endpoint.name for endpoint in client.pool.endpoints}
    if former.kernels and gateways.isdisjoint(former.gateways):
        file.copy_aside(f"the last run used other gateways ({', '.join(former.gateways)})")
    return ServerMemory(file, former, client=client, kernels=kernels, sessions=sessions, log=log)


def _read(file: StateFile, root_dir: str) -> ServerState:
    text = file.read()
    if text is None:
        return ServerState(root_dir)
    try:
        state = decode(text)
        if state.root_dir != root_dir:
            raise Unreadable(f"it is of {state.root_dir}")
    except Unreadable as error:
        file.put_aside(str(error))
        return ServerState(root_dir)
    return state
