"""What came while nobody looked: a kernel's message log and its raw output, for its own user.

``GET /api/kernels/{id}/log`` is the keeper's ``/v1/log`` passed through as it comes, so that a
large log costs a proxy one buffer; ``GET /api/kernels/{id}/output`` is what its launcher has of
stdout and stderr. Must not know what a message means.
"""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp import web

from ...cluster import Dead, KeeperEndpoint, Waiting
from ...errors import BadRequest, Gone, Unavailable
from ..context import EDGE, identity_of, kernel_id_of
from ..tunnel.dial import CONNECT_SECONDS, KeeperUnreachable, check_endpoint

#: Seconds in which a keeper that sends a log must send something.
IDLE_SECONDS: Final = 20.0
MOST_OUTPUT_LINES: Final = 5_000
OUTPUT_LINES: Final = 200
_PIECE: Final = 256 * 1024
#: Passed on as they are, after a look at what they hold.
_NUMBERS: Final = ("from", "limit")


async def read_log(request: web.Request) -> web.StreamResponse:
    """JSON lines from ``from`` on: for everybody, and for ``session`` if it is given."""
    kernel_id = kernel_id_of(request)
    query = _log_query(request)
    located = await request.app[EDGE].cluster.locate(kernel_id, identity_of(request).user)
    match located:
        case Dead(reason):
            raise Gone(f"the kernel is dead and its log went with it: {reason}", reason="dead")
        case Waiting(reason):
            raise Unavailable(f"there is no log yet: {reason}")
        case endpoint:
            return await _pass_through(request, endpoint, query)


async def read_output(request: web.Request) -> web.Response:
    """The last ``lines`` lines of the kernel's and of its keeper's stdout and stderr."""
    kernel_id = kernel_id_of(request)
    lines = min(_number(request, "lines", OUTPUT_LINES), MOST_OUTPUT_LINES)
    cluster = request.app[EDGE].cluster
    found = await cluster.kernel_output(kernel_id, identity_of(request).user, lines)
    return web.json_response(
        {
            "id": kernel_id,
            "state": found.state,
            "reason": found.reason,
            "launcher": found.launcher,
            "output": dict(found.output),
        },
        headers={"Cache-Control": "no-store"},
    )


async def _pass_through(
    request: web.Request, endpoint: KeeperEndpoint, query: dict[str, str]
) -> web.StreamResponse:
    check = _checked(endpoint)
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS
    )
    scheme = "http" if endpoint.fingerprint is None else "https"
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    url = f"{scheme}://{host}:{endpoint.port}/v1/log"
    headers = {"Authorization": f"Bearer {endpoint.credential}"}
    response: web.StreamResponse | None = None
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(url, params=query, headers=headers, ssl=check) as answer,
        ):
            if answer.status != 200:
                raise Unavailable(f"the kernel's keeper answered {answer.status}; try again")
            response = _begun()
            await response.prepare(request)
            async for piece in answer.content.iter_chunked(_PIECE):
                await response.write(piece)
            await response.write_eof()
            return response
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        if response is not None and response.prepared:
            # Broken off: without the last chunk the client knows that this is not all.
            if request.transport is not None:
                request.transport.abort()
            return response
        raise Unavailable(f"the kernel's keeper cannot be reached now: {error}") from error


def _begun() -> web.StreamResponse:
    return web.StreamResponse(
        headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
    )


def _checked(endpoint: KeeperEndpoint) -> aiohttp.Fingerprint | bool:
    """How to know the keeper. Raises Unavailable."""
    try:
        check_endpoint(endpoint)
    except KeeperUnreachable as error:
        raise Unavailable(str(error)) from error
    if endpoint.fingerprint is None:
        return True
    return aiohttp.Fingerprint(bytes.fromhex(endpoint.fingerprint.replace(":", "")))


def _log_query(request: web.Request) -> dict[str, str]:
    query = {name: str(_number(request, name, 0)) for name in _NUMBERS if request.query.get(name)}
    session = request.query.get("session")
    return query if session is None else {**query, "session": session}


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadRequest(f"{name} must be a number")
    return int(text)
