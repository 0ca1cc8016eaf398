"""Every error as JSON with the status that Jupyter clients react to rightly.

``{"reason": machine word, "message": sentence}`` (wire.md). Invariant: nothing unexpected becomes
500, 502 or 504, because JupyterLab ends the kernel's UI on those while the kernel may live
(DESIGN promise 6); it is 503 with Retry-After, and the traceback goes to the log.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from ..errors import Misdirected, ProxyError, Unavailable
from .context import EDGE

_log: Final = structlog.get_logger("holdfast.edge")


@web.middleware
async def errors_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into a response; count it as in flight meanwhile."""
    edge = request.app[EDGE]
    task = asyncio.current_task()
    if task is not None:
        edge.in_flight.add(task)
    try:
        return await handler(request)
    except ProxyError as error:
        return error_response(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _http_error(error)
    except asyncio.CancelledError:
        if not edge.draining:
            raise
        return error_response(
            Unavailable("this proxy is shutting down; ask another one", retry_after=0.0)
        )
    except Exception:
        # The outer edge: whatever went wrong, the kernel may be well.
        _log.exception("request failed", method=request.method, path=request.path)
        return error_response(
            Unavailable("something unexpected went wrong in this proxy; its log tells more")
        )
    finally:
        if task is not None:
            edge.in_flight.discard(task)


def error_response(error: ProxyError) -> web.Response:
    """The JSON answer for a ProxyError."""
    body: dict[str, Any] = {
        "reason": error.reason or _machine_word(type(error).__name__),
        "message": error.message,
    }
    headers: dict[str, str] = {}
    if isinstance(error, Misdirected):
        body["owner"] = error.owner
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="holdfast"'
    return web.json_response(body, status=error.status, headers=headers)


def _http_error(error: web.HTTPException) -> web.Response:
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    body = {"reason": _machine_word(error.reason), "message": f"{error.status} {error.reason}"}
    return web.json_response(body, status=error.status, headers=headers)


def _machine_word(name: str) -> str:
    """``NotFound`` and ``Not Found`` alike become ``not_found``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")
