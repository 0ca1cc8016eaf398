"""``GET /metrics``, and who may read it.

The figures name nobody, but they tell how busy a cluster is and how it fares, so they are an
administrator's: of a token that opens nothing else (``metrics_token``, for a scraper's file), of an
administrator's own, or of everybody if the configuration says so. A proxy without any token listens
on loopback and answers whoever reaches it there, as it does for everything else. Decides who may;
must not know what is counted.
"""

from __future__ import annotations

import hmac

from aiohttp import web

from ..metrics.standing import EdgeFacts, Standing
from .admin.access import require_admin
from .auth import bearer, check_origin
from .context import EDGE, Edge


async def metrics(request: web.Request) -> web.Response:
    """The figures, in the format that the scraper asks for. Raises Unauthorized, Forbidden."""
    edge = request.app[EDGE]
    _check_scraper(edge, request)
    body, content_type = edge.cluster.metrics.render(request.headers.get("Accept", ""))
    return web.Response(
        body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"}
    )


def _check_scraper(edge: Edge, request: web.Request) -> None:
    config = edge.config
    if config.metrics_public:
        return
    offered = (bearer(request.headers) or "").encode("utf-8", "surrogateescape")
    known = config.metrics_token
    if known is not None and hmac.compare_digest(offered, known.reveal().encode()):
        return
    is_open = edge.authenticator.is_open
    check_origin(request.headers, allowed=config.allow_origin, is_open=is_open)
    identity = edge.authenticator.identify(request.headers, request.query)
    if not is_open:
        require_admin(identity, config)


def register(app: web.Application) -> None:
    """Serve ``/metrics``, below the base path and at the root, where scrapers look; have the edge
    and its cluster asked at each scrape."""
    edge = app[EDGE]
    for prefix in {edge.config.base_url, "/"}:
        app.router.add_get(f"{prefix}metrics", metrics)

    def facts() -> EdgeFacts:
        to_keeper, to_client = edge.tunnels.carried
        return EdgeFacts(
            tunnels=len(edge.tunnels),
            standins=len(edge.standins),
            to_keeper=to_keeper,
            to_client=to_client,
            draining=edge.draining,
            readiness=edge.cluster.readiness()[0],
        )

    edge.cluster.metrics.register(Standing(facts, edge.cluster.facts))
