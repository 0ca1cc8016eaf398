"""The administrators' calls (docs/reference/wire.md, "Administration"): who may, and the answers.

Every handler checks ``require_admin`` first. Must not know how an overview comes about.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from aiohttp import web

from ...cluster import Readiness
from ...errors import BadRequest, Unavailable
from ...overview import DEGRADED, DRAINING, READY, EdgeState, Overview
from ..context import EDGE, Edge, identity_of
from .access import require_admin
from .feed import PUSHED_LINES, Feed, Snapshots, Subscriber, Version, encode

#: Lines of the timeline that one answer may have.
MOST_LINES: Final = 2_000
#: Seconds without news after which a comment says that the stream lives.
HEARTBEAT_SECONDS: Final = 10.0
#: Seconds between two looks whether the client is still there.
LOOK_SECONDS: Final = 1.0
SNAPSHOTS: Final = web.AppKey("SNAPSHOTS", Snapshots)
FEED: Final = web.AppKey("FEED", Feed)
_PROXY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def prepare(app: web.Application) -> None:
    """Give the application what the handlers share; ``app[EDGE]`` is there already."""
    edge = app[EDGE]

    async def look() -> Overview:
        return await edge.cluster.administration.overview(edge_state(edge))

    app[SNAPSHOTS] = Snapshots(look, clock=edge.clock.now)
    app[FEED] = Feed(app[SNAPSHOTS])


def routes(base: str) -> list[web.RouteDef]:
    """The routes below ``base``."""
    own = f"{base}holdfast/v1"
    return [
        web.get(f"{own}/cluster", cluster),
        web.get(f"{own}/cluster/events", cluster_events, allow_head=False),
        web.get(f"{own}/checks", checks),
        web.get(f"{own}/proxy", proxy),
        web.post(f"{own}/proxies/{{proxy_id}}/drain", drain_proxy),
    ]


def edge_state(edge: Edge) -> EdgeState:
    """What this proxy's edge adds to the overview."""
    readiness, message = edge.cluster.readiness()
    status = READY if readiness is Readiness.READY else DEGRADED
    if edge.draining:
        status, message = DRAINING, "this proxy is draining"
    return EdgeState(tunnels=len(edge.tunnels), status=status, message=message)


async def cluster(request: web.Request) -> web.Response:
    """The whole cluster, as of a second ago at most."""
    edge = _admitted(request)
    lines = _lines(request)
    overview = await request.app[SNAPSHOTS].get()
    if edge.draining:
        raise Unavailable("this proxy is shutting down; ask another one", retry_after=0.0)
    return _json(encode(overview.document(timeline=lines)))


async def checks(request: web.Request) -> web.Response:
    """What this proxy reaches, for ``holdfast doctor``."""
    edge = _admitted(request)
    return _json(encode(await edge.cluster.administration.checks()))


async def proxy(request: web.Request) -> web.Response:
    """What this proxy says of itself; the others ask it."""
    edge = _admitted(request)
    return _json(encode(edge.cluster.administration.own_state(edge_state(edge))))


async def drain_proxy(request: web.Request) -> web.Response:
    """Begin a proxy's end in order: this one's, or another's by passing the call on once."""
    edge = _admitted(request)
    proxy_id = request.match_info["proxy_id"]
    if _PROXY_ID.fullmatch(proxy_id) is None:
        raise BadRequest("a proxy's id is 1 to 128 of A-Z a-z 0-9 . _ -")
    if proxy_id != edge.cluster.proxy_id:
        if identity_of(request).forwarded_by is not None:
            raise BadRequest(f"this is {edge.cluster.proxy_id}, not {proxy_id}")
        await edge.cluster.administration.pass_drain(proxy_id)
    elif edge.stop is None:
        raise Unavailable("this proxy cannot be told to end; signal its process")
    else:
        # After the answer is on its way: a drain cuts what is still connected.
        asyncio.get_running_loop().call_later(0.05, edge.stop)
    return web.json_response({"draining": proxy_id}, status=202)


async def cluster_events(request: web.Request) -> web.StreamResponse:
    """The overview whenever it changed, as server-sent events, until the client goes or we do."""
    edge = _admitted(request)
    async with request.app[FEED].subscribe() as subscriber:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-store",
                # Buffering intermediaries would hold events back.
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")
        try:
            await _send_versions(request, response, subscriber)
        except asyncio.CancelledError:
            if not edge.draining:
                raise
        except ConnectionError:
            return response  # the client has gone
        if not edge.draining:
            return response
        await response.write(b'event: bye\ndata: {"reason":"drain"}\n\n')
        await response.write_eof()
    return response


async def _send_versions(
    request: web.Request, response: web.StreamResponse, subscriber: Subscriber
) -> None:
    """Until this proxy drains or the client is gone, of which nothing but a look tells."""
    edge, quiet = request.app[EDGE], 0.0
    while not edge.draining and request.transport is not None:
        version = await subscriber.next(min(LOOK_SECONDS, HEARTBEAT_SECONDS))
        quiet = 0.0 if version is not None else quiet + LOOK_SECONDS
        if version is not None:
            await response.write(_event(version))
        elif quiet >= HEARTBEAT_SECONDS:
            quiet = 0.0
            await response.write(b": alive\n\n")


def _event(version: Version) -> bytes:
    return b"id: %d\nevent: snapshot\ndata: %s\n\n" % (version.number, version.data)


def _admitted(request: web.Request) -> Edge:
    edge = request.app[EDGE]
    require_admin(identity_of(request), edge.config)
    return edge


def _lines(request: web.Request) -> int:
    text = request.query.get("timeline")
    if text is None:
        return PUSHED_LINES
    if not (text.isascii() and text.isdigit()) or len(text) > 6:
        raise BadRequest("timeline must be a number of lines")
    return min(int(text), MOST_LINES)


def _json(data: bytes) -> web.Response:
    return web.Response(
        body=data, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
