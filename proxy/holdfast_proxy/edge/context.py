"""What every handler of one proxy shares, and how it reaches them.

A plain value in the aiohttp application; it must not decide anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from aiohttp import web

from ..cluster import Cluster
from ..config import ProxyConfig
from ..errors import BadRequest, NotFound
from .arrival import ArrivalClock
from .auth import Authenticator, Identity
from .tunnel.pump import ReadBuffer
from .tunnel.registry import TunnelRegistry

if TYPE_CHECKING:
    from .websocket.standin import Standin


@dataclass(slots=True)
class Edge:
    """One proxy's edge. ``draining`` is set once and never taken back."""

    cluster: Cluster
    config: ProxyConfig
    authenticator: Authenticator
    clock: ArrivalClock
    tunnels: TunnelRegistry
    buffer: ReadBuffer = field(default_factory=ReadBuffer)
    draining: bool = False
    #: Clients whose kernel has no keeper yet.
    standins: set[Standin] = field(default_factory=set)
    #: Tasks of REST requests that are being answered.
    in_flight: set[asyncio.Task[Any]] = field(default_factory=set)
    #: Begins this proxy's end as SIGTERM does; set by whoever runs it as a process.
    stop: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = "draining" if self.draining else "serving"
        return f"<Edge {self.cluster.proxy_id} {state} {self.tunnels!r}>"


EDGE: Final = web.AppKey("EDGE", Edge)


def request_key(name: str, kind: type) -> Any:
    """A key of a request's storage: typed from aiohttp 3.14 on, which warns about strings."""
    typed = getattr(web, "RequestKey", None)
    return name if typed is None else typed(name, kind)


IDENTITY: Final = request_key("holdfast_identity", Identity)
ARRIVAL: Final = request_key("holdfast_arrival", float)


def identity_of(request: web.Request) -> Identity:
    """Who asks, as the gate found."""
    identity: Identity = request[IDENTITY]
    return identity


def arrival_of(request: web.Request) -> float:
    """When the request arrived, in CLOCK_BOOTTIME seconds (see ``arrival``)."""
    arrival: float = request[ARRIVAL]
    return arrival


def kernel_id_of(request: web.Request) -> str:
    """The canonical id in the path. NotFound for what is no UUID: no kernel ever has such an id."""
    try:
        return str(UUID(request.match_info["kernel_id"]))
    except ValueError:
        raise NotFound("there is no such kernel", reason="no_such_kernel") from None


async def json_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object; empty when there is none. Raises BadRequest."""
    body = await request.read()
    if not body.strip():
        return {}
    try:
        value = await request.json()
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}", reason="bad_json") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object", reason="bad_json")
    return value
