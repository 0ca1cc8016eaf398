"""The launcher's HTTP API of docs/reference/wire.md, over the agent.

It knows aiohttp, headers and status codes; it must not decide anything about a kernel. Every call
needs the access token, compared in constant time, before anything else of it is looked at.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import structlog
from aiohttp import web

from holdfast_launcher.agent.agent import Agent
from holdfast_launcher.agent.last_words import LastWords
from holdfast_launcher.agent.launching import StartOrder
from holdfast_launcher.errors import (
    BadRequest,
    LauncherError,
    NoSuchKernel,
    NotReady,
    Unauthorized,
)
from holdfast_launcher.kernelspecs import KernelspecCatalog
from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import Token

_MAX_BODY = 4 * 1024 * 1024
#: Lines of a kernel's output in an answer, unless the request says how many.
_LINES = 200
#: It becomes a directory's name.
_KERNEL_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)

_log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    *, agent: Agent, catalog: KernelspecCatalog, access_token: str, words: LastWords
) -> web.Application:
    """The application; the caller binds it."""
    api = _Api(agent, catalog, words)
    app = web.Application(
        client_max_size=_MAX_BODY, middlewares=[_errors, _authentication(access_token)]
    )
    app.add_routes(
        [
            web.get("/v1/kernels", api.list_kernels),
            web.put("/v1/kernels/{kernel_id}", api.put),
            web.get("/v1/kernels/{kernel_id}", api.get),
            web.delete("/v1/kernels/{kernel_id}", api.delete),
            web.post("/v1/kernels/{kernel_id}/fence", api.fence),
            web.get("/v1/kernels/{kernel_id}/output", api.output),
            web.get("/v1/launcher", api.launcher),
            web.get("/v1/kernelspecs", api.kernelspecs),
            web.get("/v1/kernelspecs/{name}/{path:.+}", api.resource),
        ]
    )
    return app


class _Api:
    def __init__(self, agent: Agent, catalog: KernelspecCatalog, words: LastWords) -> None:
        self._agent = agent
        self._catalog = catalog
        self._words = words

    async def list_kernels(self, _request: web.Request) -> web.Response:
        return web.json_response({"kernels": self._agent.handles()})

    async def put(self, request: web.Request) -> web.Response:
        kernel_id, fence = _kernel_id(request), _fence(request)
        order = StartOrder.from_json(await request.read())
        return web.json_response(await self._agent.put(kernel_id, fence, order))

    async def get(self, request: web.Request) -> web.Response:
        return web.json_response(self._agent.get(_kernel_id(request)))

    async def delete(self, request: web.Request) -> web.Response:
        return web.json_response(await self._agent.delete(_kernel_id(request), _fence(request)))

    async def fence(self, request: web.Request) -> web.Response:
        fence = await self._agent.acknowledge(_kernel_id(request), _fence(request))
        return web.json_response({"fence": fence.as_list()})

    async def output(self, request: web.Request) -> web.Response:
        kernel_id, lines = _kernel_id(request), _lines(request)
        output = await asyncio.to_thread(self._words.read, kernel_id, lines=lines)
        if output is None:
            raise NoSuchKernel(f"this launcher has no output of kernel {kernel_id} (any more)")
        return web.json_response({"kernel_id": kernel_id, "output": output})

    async def launcher(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": software_version(), "time": _now()})

    async def kernelspecs(self, _request: web.Request) -> web.Response:
        catalog = await self._catalog.read()
        return web.json_response(
            catalog.model, headers={"ETag": f'"{catalog.digest}"', "Cache-Control": "no-cache"}
        )

    async def resource(self, request: web.Request) -> web.Response:
        content, kind = await self._catalog.resource(
            request.match_info["name"], request.match_info["path"]
        )
        # A kernelspec's file is shown, never run as a page of ours.
        headers = {"X-Content-Type-Options": "nosniff"}
        return web.Response(body=content, content_type=kind, headers=headers)


def _kernel_id(request: web.Request) -> str:
    kernel_id = request.match_info["kernel_id"]
    if not _KERNEL_ID.fullmatch(kernel_id):
        raise BadRequest("a kernel id is a UUID", reason="bad_kernel_id")
    return kernel_id


def _fence(request: web.Request) -> Token:
    try:
        return Token.parse(request.headers.get("Holdfast-Fence", ""))
    except RecordError as error:
        raise BadRequest(
            "this call needs a header Holdfast-Fence: <era>.<revision>", reason="no_fence"
        ) from error


def _lines(request: web.Request) -> int:
    text = request.query.get("lines", str(_LINES))
    if not (text.isascii() and text.isdigit()) or len(text) > 6:
        raise BadRequest("lines must be a number")
    return int(text)


def _now() -> str:
    """The wall clock, ISO 8601: proxies compare it with theirs for ``holdfast doctor``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def software_version() -> str:
    """The distribution's version; ``0`` when it runs from a bare tree."""
    try:
        return version("holdfast")
    except PackageNotFoundError:
        return "0"


def _authentication(access_token: str) -> Any:
    expected = f"Bearer {access_token}".encode()

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            raise Unauthorized("this call needs the launcher's access token")
        return await handler(request)

    return authenticate


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except LauncherError as error:
        headers = {"Retry-After": "1"} if error.status == 503 else {}
        return web.json_response(error.body(), status=error.status, headers=headers)
    except web.HTTPException as error:
        body = {"reason": "http", "message": error.reason}
        return web.json_response(body, status=error.status, headers=_allow(error))
    except OSError as error:
        # A full disk, or no descriptor left. "Not now" is always 503.
        _log.warning("request failed", method=request.method, path=request.path, error=str(error))
        refusal = NotReady(f"the launcher's disk or descriptors: {error}")
        return web.json_response(refusal.body(), status=503, headers={"Retry-After": "1"})
    except Exception:
        # The edge: a bug must not look like a proxy's or a keeper's failure.
        _log.exception("request failed", method=request.method, path=request.path)
        body = {"reason": "internal", "message": "the launcher failed; its log says why"}
        return web.json_response(body, status=500)


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
