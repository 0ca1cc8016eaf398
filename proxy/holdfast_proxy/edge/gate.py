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

from ..config import ProxyConfig
from ..errors import draining
from .auth import check_origin
from .context import ARRIVAL, EDGE, IDENTITY, request_key

_CORS_ORIGIN: Final = request_key("holdfast_cors_origin", str)
_METHODS: Final = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
#: The last one is what @jupyterlab/services sends where a page has a cookie of that name.
_HEADERS: Final = (
    *("Authorization", "Content-Type"),
    *("Holdfast-Request", "Holdfast-After", "Holdfast-Max-Age", "X-XSRFToken"),
)
_EXPOSED: Final = ("Location", "Retry-After")


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
                return web.Response(status=204, headers=_preflight(edge.config))
        request[IDENTITY] = edge.authenticator.identify(request.headers, request.query)
        if edge.draining:
            raise draining()
        return await handler(request)

    return gate


def _preflight(config: ProxyConfig) -> dict[str, str]:
    """What an allowed page may send (Fetch standard, section 3.2.3)."""
    return {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": ", ".join((*_HEADERS, *config.allow_headers)),
        "Access-Control-Max-Age": str(config.preflight_max_age),
    }


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal for ``on_response_prepare``: errors, too, must be readable by an allowed page."""
    origin = request.get(_CORS_ORIGIN)
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        config = request.app[EDGE].config
        exposed = ", ".join((*_EXPOSED, *config.expose_headers))
        response.headers["Access-Control-Expose-Headers"] = exposed
        if config.allow_credentials:
            response.headers["Access-Control-Allow-Credentials"] = "true"
        response.headers.add("Vary", "Origin")
