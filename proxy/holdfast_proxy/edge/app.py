"""The aiohttp application of one proxy: routes, middlewares, and what they share.

Puts parts together and decides nothing. The cluster behind it is started and closed by whoever
built it (``server``), so that tests put a fake there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from aiohttp import web

from ..cluster import Cluster
from ..config import ConfigError, ProxyConfig
from ..page import PageRoutes, page_events
from . import health, internal
from .admin import routes as admin
from .admin.access import require_admin
from .arrival import ArrivalClock
from .auth import Authenticator
from .context import EDGE, Edge
from .errors_middleware import errors_middleware
from .gate import add_cors_headers, build_gate
from .rest import kernel_log
from .rest import kernels as rest_kernels
from .rest import kernelspecs as rest_kernelspecs
from .rest.environment import is_refused
from .tunnel.registry import TunnelRegistry
from .websocket.channels import channels

#: A start request's environment may be large; nothing else has a body worth the name.
MAX_BODY_BYTES: Final = 2 * 1024 * 1024
_PUBLIC: Final = frozenset({health.livez, health.readyz, internal.whoami, internal.heartbeat})


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
    app = web.Application(
        middlewares=[errors_middleware, build_gate(_PUBLIC | page.handlers)],
        client_max_size=MAX_BODY_BYTES,
    )
    app[EDGE] = Edge(
        cluster=cluster,
        config=config,
        authenticator=authenticator,
        clock=clock or ArrivalClock(),
        tunnels=TunnelRegistry(cluster.proxy_id),
    )
    admin.prepare(app)
    app.on_response_prepare.append(add_cors_headers)
    app.cleanup_ctx.append(_keep_time)
    app.add_routes(page.routes())
    _add_routes(app, config.base_url)
    return app


def _add_routes(app: web.Application, base: str) -> None:
    kernel = f"{base}api/kernels/{{kernel_id}}"
    routes = [
        web.get(f"{base}api", internal.api_version),
        web.get(f"{base}api/", internal.api_version),
        web.get(f"{base}api/status", internal.api_status),
        web.get(f"{base}api/kernelspecs", rest_kernelspecs.list_kernelspecs),
        web.get(f"{base}api/kernelspecs/{{name}}", rest_kernelspecs.get_kernelspec),
        web.get(f"{base}kernelspecs/{{name}}/{{path:.+}}", rest_kernelspecs.get_resource),
        web.get(f"{base}api/kernels", rest_kernels.list_kernels),
        web.post(f"{base}api/kernels", rest_kernels.start_kernel),
        web.get(kernel, rest_kernels.get_kernel),
        web.delete(kernel, rest_kernels.delete_kernel),
        web.post(f"{kernel}/interrupt", rest_kernels.interrupt_kernel),
        web.post(f"{kernel}/restart", rest_kernels.restart_kernel),
        web.get(f"{kernel}/channels", channels, allow_head=False),
        web.get(f"{kernel}/log", kernel_log.read_log, allow_head=False),
        web.get(f"{kernel}/output", kernel_log.read_output),
        web.get(f"{base}holdfast/v1/endpoints", internal.endpoints),
        web.get(f"{base}holdfast/v1/whoami", internal.whoami),
        web.post(f"{base}holdfast/v1/launchers/{{launcher_id}}", internal.heartbeat),
    ]
    routes += admin.routes(base)
    # Load balancers and supervisors look at the root, whatever the base path is.
    for prefix in {base, "/"}:
        routes.append(web.get(f"{prefix}livez", health.livez))
        routes.append(web.get(f"{prefix}readyz", health.readyz))
    app.add_routes(routes)


async def _keep_time(app: web.Application) -> AsyncIterator[None]:
    clock = app[EDGE].clock
    clock.start()
    yield
    clock.stop()
