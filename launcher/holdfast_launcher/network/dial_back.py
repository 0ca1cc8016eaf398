"""Calls of keepers on other machines: ``/v1/starts/{kernel_id}/claim``, ``ready``, ``activity``.

It knows aiohttp and hands bodies to the start desk; it must not decide who has won. These calls
are not the proxies': they carry no access token but the secret of one start, which opens nothing
else (docs/reference/wire.md, "Starts").
"""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from holdfast_launcher.agent.queueing import Queue
from holdfast_launcher.errors import Unauthorized

#: Below this path a call shows a secret of its own.
STARTS_PATH = "/v1/starts/"
_KERNEL_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_BEARER = "Bearer "


def dial_back_routes(queue: Queue) -> list[web.RouteDef]:
    """What the launcher's application adds."""
    desk = queue.desk

    async def claim(request: web.Request) -> web.Response:
        kernel_id, secret = _who(request)
        config = await asyncio.to_thread(desk.claim, kernel_id, secret, await request.read())
        body = b'{"config":' + config.to_json() + b"}"
        return web.Response(body=body, content_type="application/json")

    async def ready(request: web.Request) -> web.Response:
        kernel_id, secret = _who(request)
        await asyncio.to_thread(desk.ready, kernel_id, secret, await request.read())
        queue.dialled_back(kernel_id)
        return web.json_response({})

    async def activity(request: web.Request) -> web.Response:
        kernel_id, secret = _who(request)
        await asyncio.to_thread(desk.activity, kernel_id, secret, await request.read())
        return web.json_response({})

    return [
        web.post(STARTS_PATH + "{kernel_id}/claim", claim),
        web.post(STARTS_PATH + "{kernel_id}/ready", ready),
        web.post(STARTS_PATH + "{kernel_id}/activity", activity),
    ]


def _who(request: web.Request) -> tuple[str, str]:
    kernel_id = request.match_info["kernel_id"]
    authorization = request.headers.get("Authorization", "")
    # It becomes a directory's name; and what is no start looks like one that is not wanted.
    if not _KERNEL_ID.fullmatch(kernel_id) or not authorization.startswith(_BEARER):
        raise Unauthorized("this start is not wanted (any more); end this process")
    return kernel_id, authorization.removeprefix(_BEARER)
