"""The aiohttp application of one proxy: routes, middlewares, and what they share.

Puts parts together and decides nothing. The cluster behind it is started and closed by whoever
built it (``server``), so that tests put a fake there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from aiohttp import web

from ..cluster import Cluster
from ..config import ConfigError, ProxyConfig
from ..metrics.loop_lag import watch_loop
from ..page import PageRoutes, page_events
from . import health, internal, scraping
from .admin import routes as admin
from .admin.access import require_admin
from .arrival import ArrivalClock
from .auth import Authenticator
from .context import EDGE, Edge
from .errors_middleware import errors_middleware
from .gate import add_cors_headers, build_gate
from .reference.calls import CALLS
from .reference.handlers import PUBLIC as REFERENCE
from .reference.handlers import reference_routes
from .requests import observe_request
from .rest.environment import is_refused
from .tunnel.registry import TunnelRegistry

#: A start request's environment may be large; nothing else has a body worth the name.
MAX_BODY_BYTES: Final = 2 * 1024 * 1024
_PUBLIC: Final = REFERENCE | {call.handler for call in CALLS if call.public} | {internal.heartbeat}


def build_app(
    cluster: Cluster, config: ProxyConfig, *, clock: ArrivalClock | None = None
) -> web.Application:
    """The application for ``cluster``. ``app[EDGE]`` is what ``drain`` takes.

    Raises ConfigError when the whitelist names a variable that no client may set.
    """
    refused = sorted(filter(is_refused, config.env_whitelist))
    if refused:
        raise ConfigError(
            f"env_whitelist: {', '.join(refused)} decide what code runs; no client may set them"
        )
    authenticator = Authenticator(config)
    page = PageRoutes(
        config,
        authenticator,
        snapshot=admin.cluster,
        events=page_events,
        allow=partial(require_admin, config=config),
    )
    public = _PUBLIC | page.handlers | {scraping.metrics}
    app = web.Application(
        middlewares=[observe_request, errors_middleware, build_gate(public)],
        client_max_size=MAX_BODY_BYTES,
    )
    app[EDGE] = Edge(
        cluster=cluster,
        config=config,
        authenticator=authenticator,
        clock=clock or ArrivalClock(),
        tunnels=TunnelRegistry(cluster.proxy_id),
    )
    scraping.register(app)
    admin.prepare(app)
    app.on_response_prepare.append(add_cors_headers)
    app.cleanup_ctx.append(_keep_time)
    app.add_routes(page.routes())
    _add_routes(app, config.base_url)
    return app


def _add_routes(app: web.Application, base: str) -> None:
    app.add_routes(call.route(base) for call in CALLS)
    app.add_routes(reference_routes(base))
    app.add_routes(admin.routes(base))
    app.router.add_get(f"{base}api/", internal.api_version)
    app.router.add_post(f"{base}holdfast/v1/launchers/{{launcher_id}}", internal.heartbeat)
    if base != "/":
        # Load balancers and supervisors look at the root, whatever the base path is.
        app.router.add_get("/livez", health.livez)
        app.router.add_get("/readyz", health.readyz)


async def _keep_time(app: web.Application) -> AsyncIterator[None]:
    edge = app[EDGE]
    edge.clock.start()
    lag = asyncio.create_task(watch_loop(edge.cluster.metrics.loop_lag.observe), name="loop lag")
    yield
    lag.cancel()
    edge.clock.stop()
