"""``/livez`` and ``/readyz``, for load balancers and supervisors; no authentication.

``/readyz`` stays 200 without a lease (``degraded``): open notebooks go on through this proxy, and
taking it out of rotation because etcd is away would end what static stability keeps (promise 4).
"""

from __future__ import annotations

from aiohttp import web

from ..cluster import Readiness
from .context import EDGE


async def livez(_: web.Request) -> web.Response:
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    edge = request.app[EDGE]
    readiness, message = edge.cluster.readiness()
    if edge.draining:
        readiness, message = Readiness.NOT_READY, "draining"
    status = 503 if readiness is Readiness.NOT_READY else 200
    headers = {"Retry-After": "1"} if status == 503 else None
    return web.json_response(
        {"status": readiness.value, "message": message}, status=status, headers=headers
    )
