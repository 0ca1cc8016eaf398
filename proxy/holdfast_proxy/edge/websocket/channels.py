"""``GET /api/kernels/{id}/channels``: from a client's upgrade to a tunnel, or to the standin.

Locates the keeper, dials it, answers the client and hands both transports to the pump; from there
on aiohttp sees no byte. Everything that can go wrong before the client's 101 becomes an ordinary
error response; after it there is no response any more. Must not know frames or messages.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from ...cluster import Dead, KeeperEndpoint, Waiting
from ...errors import Unavailable
from ..context import EDGE, Edge, arrival_of, identity_of, kernel_id_of
from ..tunnel.dial import KeeperConnection, KeeperRefused, KeeperUnreachable, dial, tune
from ..tunnel.handshake import ClientUpgrade, client_answer, read_upgrade
from ..tunnel.pump import Tunnel
from ..tunnel.registry import TunnelEntry
from .standin import Standin

#: What a kernel's own user may do; the keeper enforces it.
GRANTS: Final = "read,execute"
#: An upgrade that lay here longer than this many seconds has been given up by its client.
UPGRADE_AGE_SECONDS: Final = 5.0
_log: Final = structlog.get_logger("holdfast.tunnel")


async def channels(request: web.Request) -> web.StreamResponse:
    """The handler; it lives as long as the connection does."""
    edge = request.app[EDGE]
    kernel_id = kernel_id_of(request)
    user = identity_of(request).user
    upgrade = read_upgrade(request.headers, request.query.get("session_id"))
    if edge.clock.now() - arrival_of(request) > UPGRADE_AGE_SECONDS:
        # The client has come back elsewhere meanwhile; a second connection of its session would
        # take the kernel from the first.
        raise Unavailable("this proxy was frozen for a while; connect again", retry_after=0.0)
    located: KeeperEndpoint | Waiting | Dead | None = None
    for _ in range(2):
        tried, located = located, await edge.cluster.locate(kernel_id, user)
        if located == tried:
            break  # it was just found unreachable, and nothing has changed
        if not isinstance(located, KeeperEndpoint):
            standin = Standin(edge, kernel_id, user, upgrade, grants=GRANTS)
            return await standin.serve(request, located)
        try:
            return await _tunnel(edge, request, located, upgrade, user)
        except KeeperUnreachable as error:
            _log.warning("keeper unreachable", kernel_id=kernel_id, error=str(error))
            await edge.cluster.report_unreachable(located, str(error))
    raise Unavailable(f"the keeper of kernel {kernel_id} cannot be reached now; try again")


async def _tunnel(
    edge: Edge,
    request: web.Request,
    endpoint: KeeperEndpoint,
    upgrade: ClientUpgrade,
    user: str | None,
) -> web.StreamResponse:
    entry = edge.tunnels.open(endpoint)
    try:
        keeper = await _open_keeper(edge, entry, upgrade, user)
        tunnel = _join(edge, request, keeper, upgrade)
        entry.abort = tunnel.abort
        _log.debug("tunnel open", tunnel=entry.id, kernel_id=endpoint.kernel_id)
        try:
            await asyncio.shield(tunnel.closed)
        finally:
            tunnel.abort()  # after a cancellation; otherwise both legs are gone already
            _log.debug("tunnel closed", tunnel=entry.id, state=repr(tunnel))
        return TunnelledResponse()
    finally:
        edge.tunnels.close(entry)


async def _open_keeper(
    edge: Edge, entry: TunnelEntry, upgrade: ClientUpgrade, user: str | None
) -> KeeperConnection:
    """Dial for a registered tunnel. Raises KeeperUnreachable, or Unavailable if it refuses us."""
    try:
        keeper = await dial(
            entry.endpoint, upgrade, tunnel_id=entry.id, user=user or "", grants=GRANTS
        )
    except KeeperRefused as error:
        _log.warning("keeper refused", kernel_id=entry.endpoint.kernel_id, status=error.status)
        word = "refused this proxy" if error.status in (401, 403) else "is not ready"
        raise Unavailable(
            f"the keeper of kernel {entry.endpoint.kernel_id} {word} ({error.status}); try again",
            retry_after=error.retry_after or 1.0,
        ) from error
    if edge.draining:
        # Its keeper was perhaps told of the drain before it knew of this tunnel.
        keeper.transport.abort()
        raise Unavailable("this proxy is shutting down; ask another one", retry_after=0.0)
    return keeper


def _join(
    edge: Edge, request: web.Request, keeper: KeeperConnection, upgrade: ClientUpgrade
) -> Tunnel:
    """Answer the client and put the pump between the transports, in one turn of the loop."""
    client = request.transport
    if client is None or client.is_closing() or keeper.transport.is_closing():
        keeper.transport.abort()
        raise Unavailable("a connection ended while the tunnel was being made")
    server = request.protocol
    # What the client sent before its 101, aiohttp has kept; a parser is how it hands it over.
    early = _EarlyBytes()
    server.keep_alive(False)
    server.set_parser(early)  # type: ignore[arg-type]  # only feed_data and feed_eof are called
    tune(client)
    tunnel = Tunnel(client, keeper.transport, edge.buffer, on_client_lost=server.connection_lost)
    answer = client_answer(upgrade.key, keeper.subprotocol)
    tunnel.start(to_keeper=bytes(early.data), to_client=answer + keeper.tail)
    return tunnel


class _EarlyBytes:
    """Stands where aiohttp's websocket parser would, until the pump takes the transport."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The client's transport is gone; the pump has been told by itself."""


class TunnelledResponse(web.StreamResponse):
    """What a handler returns whose answer the tunnel has given already: nothing is written."""

    def __init__(self) -> None:
        super().__init__(status=101)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None
