"""Around every request: what is counted of it, and what all its log lines carry.

The outermost middleware, so that it sees the status that went out. A route's template stands for
its requests, never the path: paths hold ids, and strangers make them up. The ids themselves go
where they belong, into each line that is logged while the request is handled. Must not know what
handlers do.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from uuid import UUID

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from .context import EDGE

#: What a client sends as method is its own invention; these are told apart.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LONGEST_ID: Final = 256
#: A request whose client left before it was answered.
_LEFT: Final = 499
_UPGRADED: Final = 101


@web.middleware
async def observe_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time the request, and name its kernel and session in the log."""
    edge = request.app[EDGE]
    began, status = edge.clock.now(), _LEFT
    try:
        with structlog.contextvars.bound_contextvars(**_ids(request)):
            response = await handler(request)
        status = response.status
        return response
    except web.HTTPException as error:
        status = error.status
        raise
    finally:
        metrics, route = edge.cluster.metrics, _template(request, edge.config.base_url)
        method = request.method if request.method in _METHODS else "other"
        metrics.requests.labels(method, route, str(status)).inc()
        if status != _UPGRADED:
            metrics.request_duration.labels(route).observe(edge.clock.now() - began)


def _template(request: web.Request, base: str) -> str:
    """The route's template below the base path; ``none`` for what no route serves."""
    resource = request.match_info.route.resource
    if resource is None:
        return "none"
    template = resource.canonical
    return "/" + template.removeprefix(base).lstrip("/")


def _ids(request: web.Request) -> dict[str, str]:
    found: dict[str, str] = {}
    kernel = request.match_info.get("kernel_id")
    if kernel is not None:
        with suppress(ValueError):  # else it is no kernel's, and in no story
            found["kernel"] = str(UUID(kernel))
    session = request.query.get("session_id")
    if session:
        found["session"] = session[:_LONGEST_ID]
    request_id = request.headers.get("Holdfast-Request")
    if request_id:
        found["request"] = request_id[:_LONGEST_ID]
    return found
