"""The gate before every handler: arrival time, origin, authentication.

The order matters: the arrival is noted before anything is awaited, and a foreign page is refused
before its token is looked at. A few handlers have no user (health, whoami, heartbeat) and are
named when the application is built; everything else, websockets included, passes here alike.
Must not know what the handlers do. Rejected: a decorator on each handler, because the one that is
forgotten is the hole.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..errors import Unavailable
from .auth import check_origin
from .context import ARRIVAL, EDGE, IDENTITY, request_key

_CORS_ORIGIN: Final = request_key("holdfast_cors_origin", str)
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Holdfast-Request, Holdfast-After, Holdfast-Max-Age"
    ),
    "Access-Control-Max-Age": "600",
}


def build_gate(public: frozenset[Handler]) -> Middleware:
    """The middleware; ``public`` handlers are reached without origin check and token."""

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        edge = request.app[EDGE]
        request[ARRIVAL] = edge.clock.arrival()
        if request.match_info.handler in public:
            return await handler(request)
        origin = check_origin(
            request.headers,
            allowed=edge.config.allow_origin,
            is_open=edge.authenticator.is_open,
        )
        if origin is not None:
            request[_CORS_ORIGIN] = origin
            if request.method == "OPTIONS":
                return web.Response(status=204, headers=_PREFLIGHT)
        request[IDENTITY] = edge.authenticator.identify(request.headers, request.query)
        if edge.draining:
            raise Unavailable("this proxy is shutting down; ask another one", retry_after=0.0)
        return await handler(request)

    return gate


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal for ``on_response_prepare``: errors, too, must be readable by an allowed page."""
    origin = request.get(_CORS_ORIGIN)
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Location, Retry-After"
        response.headers.add("Vary", "Origin")
