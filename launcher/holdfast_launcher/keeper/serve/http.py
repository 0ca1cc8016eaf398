"""A keeper's HTTP interface (``docs/reference/wire.md``, "Keeper"): parse, call, answer.

Nothing is decided here but which status a refusal has. Every request needs the credential,
websockets included; a refusal says nothing about the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from secrets import token_bytes, token_hex
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from holdfast_protocol.errors import CloseCode, InvalidState, RecordError
from holdfast_protocol.fencing import Token
from holdfast_protocol.frames import STREAM_SUBPROTOCOL, ByeReason
from holdfast_protocol.jupyter import V1_SUBPROTOCOL

from ..config import KeeperConfig
from ..fence import Fence, StaleToken
from ..ports import KernelStartFailed
from .access import has_credential, parse_grants
from .answers import Answer, Answers
from .clients.connection import CLOSE_TIMEOUT, HEARTBEAT, Connection
from .clients.talk import NONCE_BYTES, LegacyTalk, PlainTalk, StreamTalk, Talk
from .hub import Hub
from .lifecycle import After, KernelGone, Lifecycle, NonceMismatch
from .reading import MAX_LINES, log_lines
from .status import Status

_log = structlog.get_logger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MAX_SESSION_ID: Final = 256
#: A frame of the stream is a batch or a chunk; both are far below this.
_STREAM_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_BODY_BYTES: Final = 64 * 1024
_LOG_LINES: Final = 1000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Refusal(Exception):
    """A request that is answered with an error; ``extra`` joins the JSON body."""

    def __init__(self, status: int, reason: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"reason": reason, "message": message, **extra}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the handlers work with."""

    config: KeeperConfig
    hub: Hub
    fence: Fence
    lifecycle: Lifecycle
    status: Status
    connections: set[Connection]
    #: Called after a shutdown was carried out: say goodbye to connections, then stop serving.
    on_shutdown: Callable[[], Awaitable[None]]


class KeeperApi:
    """The handlers. ``application`` is what a server runs."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._answers = Answers()

    def __repr__(self) -> str:
        return f"<KeeperApi {self._parts.hub} {self._answers}>"

    def application(self) -> web.Application:
        app = web.Application(
            middlewares=[self._errors, self._authenticated], client_max_size=_BODY_BYTES
        )
        app.add_routes(
            [
                web.get("/v1/kernel", self._kernel),
                web.post("/v1/fence", self._acknowledge),
                web.post("/v1/start", self._start),
                web.post("/v1/interrupt", self._interrupt),
                web.post("/v1/restart", self._restart),
                web.post("/v1/shutdown", self._shutdown),
                web.post("/v1/drain", self._drain),
                web.get("/v1/log", self._read_log),
                web.get("/v1/channels", self._channels),
            ]
        )
        return app

    @web.middleware
    async def _authenticated(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not has_credential(request.headers.get("Authorization"), self._parts.config.credential):
            raise _Refusal(401, "unauthorized", "the keeper's credential is needed")
        return await handler(request)

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except _Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        except StaleToken as error:
            return _json(_stale(error))
        except web.HTTPException as error:
            body = {"reason": "bad_request", "message": error.reason}
            return web.json_response(body, status=error.status)
        except OSError as error:
            # a full disk or a connection that broke; the caller may ask again
            _log.warning("http.failed", path=request.path, error=str(error))
            body = {"reason": "not_ready", "message": f"the keeper's disk or network: {error}"}
            return web.json_response(body, status=503, headers={"Retry-After": "1"})

    async def _kernel(self, request: web.Request) -> web.Response:
        return web.json_response(self._parts.status.state())

    async def _acknowledge(self, request: web.Request) -> web.Response:
        await self._fenced(request)
        return web.json_response({"fence": self._parts.fence.highest.as_list()})

    async def _start(self, request: web.Request) -> web.Response:
        token = await self._fenced(request)
        nonce = (await _body(request)).get("nonce")
        if not isinstance(nonce, str):
            raise _Refusal(400, "bad_request", "the body needs a nonce")
        return await self._once(request, lambda: self._parts.lifecycle.start(token, nonce))

    async def _interrupt(self, request: web.Request) -> web.Response:
        after = _after(request)
        return await self._once(request, lambda: self._parts.lifecycle.interrupt(after))

    async def _restart(self, request: web.Request) -> web.Response:
        token, after = await self._fenced(request), _after(request)
        return await self._once(request, lambda: self._parts.lifecycle.restart(token, after))

    async def _shutdown(self, request: web.Request) -> web.Response:
        token = await self._fenced(request)
        now = (await _body(request)).get("now", False) is True

        async def end() -> None:
            await self._parts.lifecycle.shutdown(token, now=now)
            await self._parts.on_shutdown()

        return await self._once(request, end)

    async def _drain(self, request: web.Request) -> web.Response:
        tunnels = (await _body(request)).get("tunnels")
        if not isinstance(tunnels, list):
            raise _Refusal(400, "bad_request", "the body needs a list of tunnels")
        drained = []
        for connection in list(self._parts.connections):
            if connection.tunnel is not None and connection.tunnel in tunnels:
                connection.dismiss(
                    ByeReason.DRAIN, CloseCode.COME_BACK, "the proxy drains", come_back=True
                )
                drained.append(connection.tunnel)
        return web.json_response({"drained": drained})

    async def _read_log(self, request: web.Request) -> web.StreamResponse:
        first, limit = _number(request, "from", 1), _number(request, "limit", _LOG_LINES)
        lines = log_lines(
            self._parts.hub.journal,
            after=max(0, first - 1),
            session_id=request.query.get("session"),
            limit=min(limit, MAX_LINES),
        )
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for line in lines:
            await response.write(line)
        await response.write_eof()
        return response

    async def _channels(self, request: web.Request) -> web.StreamResponse:
        grants = parse_grants(request.headers.get("Holdfast-Grants"))
        if not grants & {"read", "execute"}:
            raise _Refusal(403, "no_grant", "Holdfast-Grants must name read or execute")
        session_id = request.query.get("session_id", "")
        if len(session_id) > _MAX_SESSION_ID:
            raise _Refusal(400, "bad_request", "the session_id is too long")
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        protocol = _choose_protocol(offered)
        if protocol == STREAM_SUBPROTOCOL and not session_id:
            raise _Refusal(400, "bad_request", "a stream needs a session_id")
        ws = web.WebSocketResponse(
            timeout=CLOSE_TIMEOUT,
            autoping=False,
            autoclose=False,
            heartbeat=HEARTBEAT,
            protocols=() if protocol is None else (protocol,),
            compress=False,
            max_msg_size=(
                _STREAM_MESSAGE_BYTES
                if protocol == STREAM_SUBPROTOCOL
                else self._parts.config.message_bytes
            ),
        )
        if not ws.can_prepare(request):
            raise _Refusal(400, "bad_request", "this is a websocket")
        talk = self._talk(protocol, session_id, may_execute="execute" in grants)
        connection = Connection(ws, talk, request.headers.get("Holdfast-Tunnel"))
        self._parts.connections.add(connection)
        try:
            await connection.run(request)
        finally:
            self._parts.connections.discard(connection)
            self._parts.hub.left(talk.session)
        return ws

    def _talk(self, protocol: str | None, session_id: str, *, may_execute: bool) -> Talk:
        hub = self._parts.hub
        session = hub.session(session_id or token_hex(16), durable=bool(session_id))
        if protocol == STREAM_SUBPROTOCOL:
            return StreamTalk(hub, session, may_execute=may_execute)
        kind = LegacyTalk if protocol is None else PlainTalk
        return kind(hub, session, token_bytes(NONCE_BYTES), may_execute=may_execute)

    async def _fenced(self, request: web.Request) -> Token:
        """The request's token, acknowledged on disk. Raises StaleToken or _Refusal."""
        header = request.headers.get("Holdfast-Fence")
        if header is None:
            raise _Refusal(400, "bad_request", "Holdfast-Fence is needed")
        try:
            token = Token.parse(header)
        except RecordError as error:
            raise _Refusal(400, "bad_request", str(error)) from error
        await self._parts.fence.acknowledge(token)
        return token

    async def _once(self, request: web.Request, act: Callable[[], Awaitable[None]]) -> web.Response:
        request_id = request.headers.get("Holdfast-Request")
        if request_id is not None and _REQUEST_ID.fullmatch(request_id) is None:
            raise _Refusal(400, "bad_request", "Holdfast-Request has 1-128 of [A-Za-z0-9._-]")

        async def run() -> Answer:
            _log.info("lifecycle.call", call=request.path, request=request_id)
            try:
                await act()
            except (
                StaleToken,
                NonceMismatch,
                KernelGone,
                KernelStartFailed,
                InvalidState,
            ) as error:
                return _failure(error)
            except Exception as error:
                # the outer edge of a call: its answer is remembered, so there must be one
                _log.exception("lifecycle.failed", call=request.path)
                return Answer(500, {"reason": "internal", "message": f"the keeper failed: {error}"})
            return Answer(200, self._parts.status.state())

        return _json(await self._answers.once(request.path, request_id, run))


def _choose_protocol(offered: str) -> str | None:
    names = [name.strip() for name in offered.split(",")]
    return next((name for name in (STREAM_SUBPROTOCOL, V1_SUBPROTOCOL) if name in names), None)


def _failure(error: Exception) -> Answer:
    if isinstance(error, StaleToken):
        return _stale(error)
    if isinstance(error, NonceMismatch):
        return Answer(409, {"reason": "nonce_mismatch", "message": str(error)})
    if isinstance(error, KernelGone):
        return Answer(404, {"reason": "no_such_kernel", "message": str(error)})
    if isinstance(error, InvalidState):
        return Answer(503, {"reason": "not_ready", "message": str(error)})
    output = error.output if isinstance(error, KernelStartFailed) else ""
    return Answer(500, {"reason": "start_failed", "message": str(error), "output": output})


def _stale(error: StaleToken) -> Answer:
    body = {"reason": "stale_token", "message": str(error), "fence": error.highest.as_list()}
    return Answer(412, body)


def _json(answer: Answer) -> web.Response:
    headers = {"Retry-After": "1"} if answer.status == 503 else None
    return web.json_response(answer.body, status=answer.status, headers=headers)


def _after(request: web.Request) -> list[After]:
    try:
        return [After.parse(text) for text in request.headers.getall("Holdfast-After", [])]
    except ValueError as error:
        raise _Refusal(400, "bad_request", str(error)) from error


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise _Refusal(400, "bad_request", f"{name} is not a number")
    return int(text)


async def _body(request: web.Request) -> dict[str, Any]:
    data = await request.read()
    if not data:
        return {}
    try:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise _Refusal(400, "bad_request", f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _Refusal(400, "bad_request", "the body is not a JSON object")
    return value
