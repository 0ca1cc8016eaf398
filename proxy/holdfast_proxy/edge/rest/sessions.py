"""``/api/sessions``: which document has which kernel, put to ``sessions.desk``.

Validates and translates, decides nothing. Source for the shapes: the Jupyter Server REST API and
``@jupyterlab/services``, which checks every field of a session's model. ``notebook`` in a request
is how clients named a path before version 5 of the API; in an answer it is still expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from aiohttp import web

from ...cluster import LifecycleCall
from ...errors import BadRequest, NotFound
from ...sessions.desk import Changes, Desk, KernelWish, Opening, OpenSession
from ..context import EDGE, Edge, arrival_of, identity_of, json_object
from .fields import MAX_NAME, MAX_PATH, table, text
from .kernels import kernel_json
from .lifecycle_headers import read_call, refuse_if_late

_KIND: Final = "the session's type, such as notebook or console"


def session_json(opened: OpenSession) -> dict[str, Any]:
    """The model as Jupyter clients know it."""
    session = opened.session
    fields: dict[str, Any] = {
        "id": session.id,
        "path": session.path,
        "name": session.name,
        "type": session.kind,
        "kernel": kernel_json(opened.kernel),
    }
    if session.kind == "notebook":
        fields["notebook"] = {"path": session.path, "name": session.name}
    return fields


async def list_sessions(request: web.Request) -> web.Response:
    opened = await _desk(request).all(identity_of(request).user)
    return web.json_response([session_json(item) for item in opened])


async def open_session(request: web.Request) -> web.Response:
    identity = identity_of(request)
    if identity.user is None:
        raise BadRequest("a forwarded session must name its user")
    opening = read_opening(
        await json_object(request), user=identity.user, forwarded_by=identity.forwarded_by
    )
    opened = await _desk(request).open(opening)
    location = f"{request.app[EDGE].config.base_url}api/sessions/{opened.session.id}"
    return web.json_response(session_json(opened), status=201, headers={"Location": location})


async def get_session(request: web.Request) -> web.Response:
    opened = await _desk(request).get(_session_id(request), identity_of(request).user)
    return web.json_response(session_json(opened))


async def change_session(request: web.Request) -> web.Response:
    session_id = _session_id(request)
    changes = read_changes(await json_object(request))
    edge, call = _call(request)
    refuse_if_late(call, now=edge.clock.now())
    opened = await _desk(request).change(session_id, identity_of(request).user, changes, call)
    return web.json_response(session_json(opened))


async def close_session(request: web.Request) -> web.Response:
    session_id = _session_id(request)
    await json_object(request)  # a body means nothing here, but a broken one is an error
    edge, call = _call(request)
    refuse_if_late(call, now=edge.clock.now())
    await _desk(request).close(session_id, identity_of(request).user, call)
    return web.Response(status=204)


def read_opening(body: Mapping[str, Any], *, user: str, forwarded_by: str | None = None) -> Opening:
    """POST /api/sessions after validation. Raises BadRequest naming the field."""
    changes = read_changes(body)
    if changes.path is None:
        raise BadRequest("Missing field in JSON data: path")
    if changes.kind is None:
        raise BadRequest("Missing field in JSON data: type")
    return Opening(
        user=user,
        path=changes.path,
        name=changes.name or "",
        kind=changes.kind,
        kernel=changes.kernel or KernelWish(),
        forwarded_by=forwarded_by,
    )


def read_changes(body: Mapping[str, Any]) -> Changes:
    """PATCH /api/sessions/{id} after validation. Raises BadRequest naming the field."""
    if not body:
        raise BadRequest("No JSON data provided")
    path = text(body, "path", most=MAX_PATH, what="a string that is not empty", empty=False)
    kind = text(body, "type", most=MAX_NAME, what=_KIND, empty=False)
    notebook = table(body, "notebook")
    if notebook and path is None:
        path = text(notebook, "path", most=MAX_PATH, what="a path", empty=False)
        kind = kind or ("notebook" if path is not None else None)
    return Changes(
        path=path,
        name=text(body, "name", most=MAX_PATH, what="a string"),
        kind=kind,
        kernel=_read_kernel(body) if body.get("kernel") is not None else None,
    )


def _read_kernel(body: Mapping[str, Any]) -> KernelWish:
    """By id, or by the name of a kernelspec; the id takes precedence, as with Jupyter Server."""
    kernel = table(body, "kernel")
    name = text(kernel, "name", most=MAX_NAME, what="a kernelspec's name")
    wanted = text(kernel, "id", most=MAX_NAME, what="a kernel's id")
    if not wanted:
        return KernelWish(name=name or None)
    try:
        return KernelWish(id=str(UUID(wanted)), name=name or None)
    except ValueError:
        raise BadRequest(f"No such kernel: {wanted}", reason="no_such_kernel") from None


def _desk(request: web.Request) -> Desk:
    return Desk(request.app[EDGE].cluster)


def _session_id(request: web.Request) -> str:
    wanted = request.match_info["session_id"]
    try:
        return str(UUID(wanted))
    except ValueError:
        raise NotFound(f"Session not found: {wanted[:64]}", reason="no_such_session") from None


def _call(request: web.Request) -> tuple[Edge, LifecycleCall]:
    edge = request.app[EDGE]
    call = read_call(
        request.headers,
        arrival=arrival_of(request),
        default_max_age=edge.config.default_max_age,
        forwarded_by=identity_of(request).forwarded_by,
    )
    return edge, call
