"""The live data of the page: snapshots when something changed, and beats in between.

``/holdfast/v1/cluster/events`` says that its connection lives by comments, which a browser's
EventSource does not show to a script; and a connection that lives says nothing of the data on it.
So the page has a stream of its own over the same feed: each beat says when the proxy has last
looked, and ``stale`` says that it could not. Must not know cookies; the caller has admitted who
asks. Rejected: sending the whole snapshot each second (500 kernels to 64 pages for nothing).
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from ..edge.admin.feed import Version, encode
from ..edge.admin.routes import FEED, SNAPSHOTS
from ..edge.context import EDGE
from ..errors import ProxyError

#: Seconds without a change after which a beat goes out. The page gives up after three of them.
BEAT_SECONDS: Final = 2.0
_BYE: Final = b'event: bye\ndata: {"reason":"drain"}\n\n'


async def page_events(request: web.Request) -> web.StreamResponse:
    """The feed as server-sent events until the page goes or the proxy does."""
    edge = request.app[EDGE]
    async with request.app[FEED].subscribe() as subscriber:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # an intermediary that buffers would hold beats back
            }
        )
        await response.prepare(request)
        try:
            while not edge.draining:
                version = await subscriber.next(BEAT_SECONDS)
                piece = await _beat(request.app) if version is None else _snapshot(version)
                await response.write(piece)
        except asyncio.CancelledError:
            if not edge.draining:
                raise
        except ConnectionError:
            return response  # the page has gone
        await response.write(_BYE)
        await response.write_eof()
    return response


def _snapshot(version: Version) -> bytes:
    return b"id: %d\nevent: snapshot\ndata: %s\n\n" % (version.number, version.data)


async def _beat(app: web.Application) -> bytes:
    """What differs though nothing happened, or why the proxy cannot see the cluster now."""
    try:
        overview = await app[SNAPSHOTS].get()
    except ProxyError as error:
        return b"event: stale\ndata: %s\n\n" % encode({"message": error.message})
    document = overview.document(timeline=0)
    beat = {
        "time": document["time"],
        "lease_age": document["etcd"]["lease_age"],
        "last_seen": {row["id"]: row["last_seen"] for row in document["launchers"]},
    }
    return b"event: beat\ndata: %s\n\n" % encode(beat)
