"""The gateway client singleton: configuration, endpoints, REST, and the streams.

It takes the place of jupyter_server's own (``GatewayClient.instance()`` gives it), so all its
options hold. What it must not do is decide anything about a kernel; that is the managers'.
"""

# jupyter_server's client has few annotations:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.escape import url_escape
from tornado.httpclient import HTTPResponse
from tornado.httputil import url_concat
from traitlets import Bool, Unicode, default

from holdfast_protocol.frames import STREAM_SUBPROTOCOL
from holdfast_protocol.jupyter import V1_SUBPROTOCOL

from ..gateway.dialer import Dialer
from ..gateway.endpoints import Endpoint, EndpointPool
from ..gateway.rest import Call, RestCaller, Unanswered
from ..gateway.upstream import Target, words_of
from ..stream.board import StatusBoard, as_event
from ..stream.registry import StreamRegistry

if TYPE_CHECKING:
    from .memory import ServerMemory

LEARN_EVERY: Final = 10.0
READ_BUDGET: Final = 10.0
EXPLAIN_BUDGET: Final = 2.0
ENDPOINTS_PATH: Final = "/holdfast/v1/endpoints"


class HoldfastGatewayClient(GatewayClient):
    """jupyter_server's gateway client with several endpoints and streams that resume."""

    gateway_urls = Unicode(
        config=True,
        help="Further gateway URLs, separated by commas. (HOLDFAST_GATEWAY_URLS env var)",
    )
    shutdown_on_exit = Bool(
        None,
        allow_none=True,
        config=True,
        help="Whether stopping this server ends its kernels. By default they stay behind "
        "Holdfast, and end behind any other gateway.",
    )

    @default("gateway_urls")
    def _gateway_urls_default(self) -> str:
        return os.environ.get("HOLDFAST_GATEWAY_URLS", "")

    @default("url")
    def _url_default(self) -> str | None:
        return os.environ.get(self.url_env) or next(iter(self._further_urls()), None)

    def _further_urls(self) -> list[str]:
        return [url.strip() for url in self.gateway_urls.split(",") if url.strip()]

    @cached_property
    def pool(self) -> EndpointPool:
        """Raises ValueError on a malformed URL."""
        first = Endpoint.of(self.url or "", self.ws_url)
        others = [Endpoint.of(url) for url in self._further_urls()]
        return EndpointPool([first, *(e for e in others if e.url != first.url)])

    @cached_property
    def dialer(self) -> Dialer:
        self._keep_learning()
        return Dialer(self.pool, self._target)

    @cached_property
    def streams(self) -> StreamRegistry:
        return StreamRegistry(self, self.log, board=self._board, noted=self.noted)

    @cached_property
    def _board(self) -> StatusBoard:
        return StatusBoard(lambda status: self.publish(status), self.log)

    #: Where a stream's status goes; ``extension`` puts the server's event logger here.
    publish: Callable[[dict[str, Any]], None] = staticmethod(lambda status: None)
    #: What outlives this server; None when it keeps nothing.
    memory: ServerMemory | None = None

    def noted(self) -> None:
        """Something that outlives this server changed."""
        if self.memory is not None:
            self.memory.noted()

    def statuses(self) -> list[dict[str, Any]]:
        """How every stream is that has a notebook, in the form of the event."""
        now, wall = asyncio.get_running_loop().time(), datetime.now(UTC)
        return [
            as_event((s.kernel_id, s.session_id), s.monitor.status, now=now, wall=wall)
            for s in self.streams
            if s.connecting
        ]

    @property
    def kernels_stay(self) -> bool:
        """Whether stopping this server leaves its kernels alone."""
        if self.shutdown_on_exit is not None:
            return not self.shutdown_on_exit
        return self.is_holdfast or (self.memory is not None and self.memory.was_holdfast)

    @cached_property
    def _rest(self) -> RestCaller:
        self._keep_learning()
        return RestCaller(
            self.pool,
            arguments=lambda headers: self.load_connection_args(headers=headers),
            lost=self.endpoint_lost,
        )

    @property
    def is_holdfast(self) -> bool:
        return self.pool.is_holdfast

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        """Somebody found it dead: everybody leaves it, and others are looked for."""
        self.pool.mark_down(endpoint, asyncio.get_running_loop().time())
        self._rest.endpoint_lost(endpoint)
        self._learn_now.set()

    async def stop(self) -> None:
        """The server stops: end the streams and the background work. Idempotent."""
        ending: list[asyncio.Task[None]] = []
        if self.memory is not None:
            ending += self.memory.close()  # before there is less to remember
        self.streams.close()
        learner = self.__dict__.pop("_learner", None)
        if learner is not None:
            learner.cancel()
            ending.append(learner)
        # the loop stops at once after this, and would complain of tasks that could not end
        await asyncio.gather(*ending, return_exceptions=True)

    def load_connection_args(self, **kwargs: Any) -> dict[str, Any]:
        """As jupyter_server's, which forgets ``ca_certs`` when there is no client certificate."""
        arguments: dict[str, Any] = super().load_connection_args(**kwargs)
        if self.ca_certs:
            arguments.setdefault("ca_certs", self.ca_certs)
        return arguments

    async def request(
        self, method: str, path: str, *, body: Any = None, budget: float | None = None,
        after: list[str] | None = None,
    ) -> HTTPResponse:  # fmt: skip
        """One REST call with a good answer. ``path`` is below the gateway's URL.

        Raises tornado's HTTPError with the gateway's status and words, 503 when none answers.
        """
        if budget is None:
            budget = READ_BUDGET if method == "GET" else self._mutation_budget()
        text = None if body is None else json.dumps(body)
        call = Call(method, "/" + path.lstrip("/"), budget, text, tuple(after or ()))
        try:
            response = await self._rest.call(call)
        except Unanswered as failure:
            if failure.response is None:
                self._report(503, str(failure))
                raise web.HTTPError(503, f"No gateway answers: {failure}") from failure
            response = failure.response
        if response.code >= 400:
            message = _words_of(response)
            self._report(response.code, message)
            raise web.HTTPError(response.code, f"Error from Gateway: {message}")
        self._report(200, "success")
        self._store_cookies(response)
        return response

    async def explain(self, kernel_id: str) -> tuple[str, bool] | None:
        """Why a kernel is not ready, in words for people, and whether its host can be reached;
        None when no gateway can tell."""
        try:
            answer = await self._rest.call(Call("GET", self.kernel_path(kernel_id), EXPLAIN_BUDGET))
        except Unanswered as failure:
            if failure.response is None:
                return None
            answer = failure.response
        if answer.code != 200:
            return (_words_of(answer), False) if answer.code == 503 else None
        try:
            model = json.loads(answer.body)
            state, reason = model["execution_state"], model.get("reason")
        except (ValueError, KeyError, TypeError):
            return None
        if state == "starting":
            return str(reason or "the kernel is starting"), True
        return str(reason or "the kernel's host does not answer"), False

    def kernel_path(self, kernel_id: str, action: str = "") -> str:
        """The path of a kernel, or of an action on it."""
        path = url_path_join(self.kernels_endpoint, url_escape(kernel_id, plus=False), action)
        return str(path).rstrip("/")

    def _mutation_budget(self) -> float:
        self.load_connection_args()  # brings request_timeout and KERNEL_LAUNCH_TIMEOUT in line
        return float(self.request_timeout)

    def _report(self, status: int, message: str) -> None:
        self.emit(
            data={
                "status": "success" if status < 400 else "error",
                "status_code": status,
                "msg": message,
            }
        )

    def _store_cookies(self, response: HTTPResponse) -> None:
        if not self.accept_cookies or "Set-Cookie" not in response.headers:
            return
        if "headers" in inspect.signature(self.update_cookies).parameters:
            self.update_cookies(response.headers)
            return
        # jupyter_server before 2.8 takes the parsed cookies
        cookies: SimpleCookie = SimpleCookie()
        for header in response.headers.get_list("Set-Cookie"):
            cookies.load(header)
        self.update_cookies(cookies)  # type: ignore[arg-type] # the old signature

    def _target(self, endpoint: Endpoint, kernel_id: str, session_id: str) -> Target:
        arguments = self.load_connection_args(headers={})
        headers = dict(arguments.get("headers") or {})
        url = url_path_join(endpoint.ws_url, self.kernel_path(kernel_id, "channels"))
        if arguments.get("auth_username") is not None and "Authorization" not in headers:
            headers["Authorization"] = _basic(arguments)
        return Target(
            url=url_concat(url, {"session_id": session_id}),
            headers=headers,
            subprotocols=(STREAM_SUBPROTOCOL, V1_SUBPROTOCOL),
            ssl_context=self._ssl_context if url.startswith("wss:") else None,
        )

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_certs or None)
        if not self.validate_cert:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert:
            context.load_cert_chain(self.client_cert, self.client_key or None)
        return context

    @cached_property
    def _learn_now(self) -> asyncio.Event:
        return asyncio.Event()

    def _keep_learning(self) -> None:
        if not hasattr(self, "_learner"):
            self._learner = asyncio.get_running_loop().create_task(self._learn_for_ever())

    async def _learn_for_ever(self) -> None:
        while True:
            self._learn_now.clear()
            await self._learn()
            try:
                await asyncio.wait_for(self._learn_now.wait(), LEARN_EVERY)
                # one loss is often reported by many streams at once
                await asyncio.sleep(LEARN_EVERY / 20)
            except TimeoutError:
                continue

    async def _learn(self) -> None:
        source = self.pool.order(asyncio.get_running_loop().time())[0]
        try:
            response = await self._rest.call(Call("GET", ENDPOINTS_PATH, LEARN_EVERY / 2))
            proxies = json.loads(response.body)["proxies"] if response.code == 200 else None
            urls = None if proxies is None else [str(proxy["url"]) for proxy in proxies]
        except (Unanswered, ValueError, KeyError, TypeError):
            return
        if urls is None:
            return
        self.pool.is_holdfast = True
        new = self.pool.learn(source, urls, certificates_verified=bool(self.validate_cert))
        for endpoint in new:
            self.log.info("holdfast: learned of the gateway %s", endpoint.name)


def _basic(arguments: dict[str, Any]) -> str:
    pair = f"{arguments['auth_username']}:{arguments.get('auth_password') or ''}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _words_of(response: HTTPResponse) -> str:
    return words_of(response.body or b"") or str(response.reason or response.code)


def path_segment(text: str) -> str:
    """One percent-encoded segment of a path."""
    return quote(text, safe="")
