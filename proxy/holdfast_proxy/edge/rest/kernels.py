"""``/api/kernels``: what Jupyter's gateway clients ask of kernels, put to the cluster.

Validates and translates, decides nothing about kernels. Source for the shapes: the Jupyter Server
REST API and ``jupyter_server.gateway.managers``, which parses ``last_activity`` as
``%Y-%m-%dT%H:%M:%S.%fZ``, sends ``{}`` as the body of restart and interrupt, and evicts a kernel
on any error other than those that promise 6 allows.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

from aiohttp import web

from ...cluster import KernelModel, LifecycleCall, StartRequest
from ...errors import BadRequest
from ..context import EDGE, Edge, arrival_of, identity_of, json_object, kernel_id_of
from .environment import kernel_environment
from .lifecycle_headers import read_call, read_request_id, refuse_if_late


def kernel_json(model: KernelModel) -> dict[str, Any]:
    """The model as Jupyter clients know it; ``reason`` only when there is one."""
    fields: dict[str, Any] = {
        "id": model.id,
        "name": model.name,
        "last_activity": model.last_activity,
        "execution_state": model.execution_state,
        "connections": model.connections,
    }
    if model.reason is not None:
        fields["reason"] = model.reason
    return fields


async def list_kernels(request: web.Request) -> web.Response:
    models = await request.app[EDGE].cluster.list_kernels(identity_of(request).user)
    return web.json_response([kernel_json(model) for model in models])


async def get_kernel(request: web.Request) -> web.Response:
    cluster = request.app[EDGE].cluster
    model = await cluster.get_kernel(kernel_id_of(request), identity_of(request).user)
    return web.json_response(kernel_json(model))


async def start_kernel(request: web.Request) -> web.Response:
    edge = request.app[EDGE]
    identity = identity_of(request)
    user = identity.user
    if user is None:
        raise BadRequest("a forwarded start must name its user")
    start = read_start(
        await json_object(request),
        user=user,
        whitelist=edge.config.env_whitelist,
        request_id=read_request_id(request.headers),
        forwarded_by=identity.forwarded_by,
    )
    model = await edge.cluster.start_kernel(start)
    location = f"{edge.config.base_url}api/kernels/{quote(model.id, safe='')}"
    return web.json_response(kernel_json(model), status=201, headers={"Location": location})


async def delete_kernel(request: web.Request) -> web.Response:
    edge, kernel_id, call = await _lifecycle(request)
    await edge.cluster.delete_kernel(kernel_id, identity_of(request).user, call)
    return web.Response(status=204)


async def restart_kernel(request: web.Request) -> web.Response:
    edge, kernel_id, call = await _lifecycle(request)
    model = await edge.cluster.restart_kernel(kernel_id, identity_of(request).user, call)
    return web.json_response(kernel_json(model))


async def interrupt_kernel(request: web.Request) -> web.Response:
    edge, kernel_id, call = await _lifecycle(request)
    await edge.cluster.interrupt_kernel(kernel_id, identity_of(request).user, call)
    return web.Response(status=204)


async def _lifecycle(request: web.Request) -> tuple[Edge, str, LifecycleCall]:
    edge = request.app[EDGE]
    kernel_id = kernel_id_of(request)
    call = read_call(
        request.headers,
        arrival=arrival_of(request),
        default_max_age=edge.config.default_max_age,
        forwarded_by=identity_of(request).forwarded_by,
    )
    await json_object(request)  # a body means nothing here, but a broken one is an error
    refuse_if_late(call, now=edge.clock.now())
    return edge, kernel_id, call


def read_start(
    body: dict[str, Any],
    *,
    user: str,
    whitelist: tuple[str, ...],
    request_id: str | None,
    forwarded_by: str | None = None,
) -> StartRequest:
    """POST /api/kernels after validation. Raises BadRequest naming the field."""
    name, path, env = body.get("name"), body.get("path"), body.get("env")
    env = {} if env is None else env
    if name is not None and (not isinstance(name, str) or not name or len(name) > 256):
        raise BadRequest("name must be a kernelspec's name")
    if path is not None and (not isinstance(path, str) or "\0" in path or len(path) > 4096):
        raise BadRequest("path must be a string of at most 4096 characters")
    if not isinstance(env, dict):
        raise BadRequest("env must be an object of strings")
    return StartRequest(
        kernel_id=_kernel_id(env.get("KERNEL_ID")),
        user=user,
        spec_name=name,
        path=path or None,
        env=kernel_environment(env, whitelist=whitelist, user=user),
        request_id=request_id,
        forwarded_by=forwarded_by,
    )


def _kernel_id(wanted: object) -> str:
    if wanted is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(wanted if isinstance(wanted, str) else ""))
    except ValueError:
        raise BadRequest("KERNEL_ID must be a UUID") from None
