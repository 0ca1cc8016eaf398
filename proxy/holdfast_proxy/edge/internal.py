"""What proxies, launchers and the shim ask of a proxy besides the Jupyter API (wire.md)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from aiohttp import web

from ..errors import BadRequest, Unauthorized, Unavailable
from .auth import bearer
from .context import EDGE, arrival_of, identity_of, json_object

_LAUNCHER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: A heartbeat that lay here longer than this many seconds is old news.
HEARTBEAT_AGE_SECONDS: Final = 5.0
_STARTED: Final = datetime.now(UTC)


def package_version() -> str:
    """The distribution's version; ``0`` when it runs from a bare tree."""
    try:
        return version("holdfast")
    except PackageNotFoundError:
        return "0"


async def api_version(_: web.Request) -> web.Response:
    return web.json_response({"version": package_version()})


async def api_status(request: web.Request) -> web.Response:
    """Jupyter's ``/api/status``, over the kernels of the one who asks."""
    models = await request.app[EDGE].cluster.list_kernels(identity_of(request).user)
    started = _STARTED.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return web.json_response(
        {
            "started": started,
            "last_activity": max((model.last_activity for model in models), default=started),
            "connections": sum(model.connections for model in models),
            "kernels": len(models),
        }
    )


async def endpoints(request: web.Request) -> web.Response:
    cluster = request.app[EDGE].cluster
    proxies = [{"id": proxy.id, "url": proxy.url} for proxy in cluster.proxies()]
    return web.json_response({"proxies": proxies, "self": cluster.proxy_id})


async def whoami(request: web.Request) -> web.Response:
    cluster = request.app[EDGE].cluster
    return web.json_response(
        {
            "proxy_id": cluster.proxy_id,
            "boot_id": cluster.boot_id,
            "version": package_version(),
        }
    )


async def heartbeat(request: web.Request) -> web.Response:
    """A launcher's heartbeat. Its credential is the cluster's to judge, not the client tokens'."""
    launcher_id = request.match_info["launcher_id"]
    if _LAUNCHER_ID.fullmatch(launcher_id) is None:
        raise BadRequest("a launcher's id must be 1 to 128 of A-Z a-z 0-9 . _ -")
    credential = bearer(request.headers)
    if credential is None:
        raise Unauthorized("a launcher's heartbeat needs its credential", reason="unauthorized")
    body = await json_object(request)
    edge = request.app[EDGE]
    if edge.clock.now() - arrival_of(request) > HEARTBEAT_AGE_SECONDS:
        # Its launcher has told another proxy of newer things; these would overwrite them.
        raise Unavailable("this proxy was frozen for a while; beat again", retry_after=0.0)
    answer = await edge.cluster.heartbeat(launcher_id, credential, body)
    return web.json_response(answer)
