"""REST calls that move with the websockets: endpoints in turn, a bounded wait, no double effect.

``judge`` is the decision and pure. A call is repeated after it may have been carried out only
when that is harmless: reads, deletes, and against Holdfast everything, because there
``Holdfast-Request`` makes the repetition the same request.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from socket import gaierror
from typing import Any, Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay
from tenacity.wait import wait_random_exponential
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import HTTPTimeoutError

from .endpoints import Endpoint, EndpointPool
from .upstream import retry_after

#: Seconds without an answer after which the endpoint is asked whether it lives, and how long
#: it has to say so.
PROBE_AFTER: Final = 1.0
PROBE_TIMEOUT: Final = 1.5
LONGEST_WAIT: Final = 5.0
_HARMLESS_TWICE: Final = frozenset({"GET", "HEAD", "DELETE"})


@dataclass(frozen=True, slots=True)
class Call:
    """One REST call. ``path`` starts with a slash; ``budget``: seconds for all attempts."""

    method: str
    path: str
    budget: float
    body: str | None = None
    after: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No HTTP answer came. ``sent``: the request may have been carried out."""

    error: str
    sent: bool


class Verdict(Enum):
    ANSWER = "answer"  # final, also when it is an error
    ELSEWHERE = "elsewhere"  # ask the next endpoint, or wait


def judge(outcome: int | NoAnswer, *, told_to_retry: bool, repeatable: bool) -> Verdict:
    """What one attempt means. ``outcome``: the HTTP status, or that there was none.

    Invariant: without ``repeatable`` a call that may have been carried out is not sent again.
    503 with Retry-After says that it was not.
    """
    if isinstance(outcome, NoAnswer):
        return Verdict.ELSEWHERE if repeatable or not outcome.sent else Verdict.ANSWER
    if outcome == 503:
        return Verdict.ELSEWHERE if repeatable or told_to_retry else Verdict.ANSWER
    if outcome in (502, 504):
        return Verdict.ELSEWHERE if repeatable else Verdict.ANSWER
    return Verdict.ANSWER


class Unanswered(Exception):
    """No endpoint gave a final answer. ``response`` is the last 50x, if there was one."""

    def __init__(self, message: str, *, response: HTTPResponse | None, wait: float | None) -> None:
        super().__init__(message)
        self.response = response
        self.wait = wait


def _wait(state: RetryCallState) -> float:
    jitter = float(wait_random_exponential(multiplier=0.05, max=2.0)(state))
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, Unanswered) else None
    return max(jitter, min(asked or 0.0, LONGEST_WAIT))


def _repeatable(error: BaseException) -> bool:
    return isinstance(error, Unanswered) and not isinstance(error, _Unsafe)


class RestCaller:
    """Makes calls against a pool.

    ``arguments`` gives tornado's request arguments, with a fresh token, for given headers;
    ``lost`` is told of an endpoint that is found dead.
    """

    def __init__(
        self,
        pool: EndpointPool,
        *,
        arguments: Callable[[dict[str, str]], Mapping[str, Any]],
        lost: Callable[[Endpoint], None],
    ) -> None:
        self._pool = pool
        self._arguments = arguments
        self._lost = lost
        # Its own, because tornado's shared one has ten places that a frozen gateway would fill.
        self._http = AsyncHTTPClient(force_instance=True, max_clients=200)
        self._waiting: dict[asyncio.Future[None], Endpoint] = {}

    def __repr__(self) -> str:
        return f"<RestCaller {len(self._waiting)} under way, {self._pool!r}>"

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        """Calls under way at this endpoint go elsewhere now."""
        for future, where in self._waiting.items():
            if where == endpoint and not future.done():
                future.set_result(None)

    async def call(self, call: Call) -> HTTPResponse:
        """The final answer, whatever its status. Raises Unanswered after ``call.budget``."""
        deadline = self._now() + call.budget
        identity = uuid.uuid4().hex
        retrying = AsyncRetrying(
            retry=retry_if_exception(_repeatable),
            wait=_wait,
            stop=stop_after_delay(call.budget),
            reraise=True,
        )
        response: HTTPResponse = await retrying(self._round, call, identity, deadline)
        return response

    async def _round(self, call: Call, identity: str, deadline: float) -> HTTPResponse:
        last: HTTPResponse | None = None
        errors: list[str] = []
        wait: float | None = None
        for endpoint in self._pool.order(self._now()):
            outcome = await self._attempt(endpoint, call, identity, deadline)
            repeatable = call.method in _HARMLESS_TWICE or self._pool.is_holdfast
            if isinstance(outcome, NoAnswer):
                errors.append(f"{endpoint.name}: {outcome.error}")
                if judge(outcome, told_to_retry=False, repeatable=repeatable) is Verdict.ANSWER:
                    raise _Unsafe(errors[-1])
                self._lost(endpoint)
                continue
            asked = retry_after(outcome.headers)
            verdict = judge(outcome.code, told_to_retry=asked is not None, repeatable=repeatable)
            if verdict is Verdict.ANSWER:
                return outcome
            errors.append(f"{endpoint.name}: HTTP {outcome.code}")
            last, wait = outcome, min(asked or 0.0, LONGEST_WAIT if wait is None else wait)
        raise Unanswered("; ".join(errors), response=last, wait=wait)

    async def _attempt(
        self, endpoint: Endpoint, call: Call, identity: str, deadline: float
    ) -> HTTPResponse | NoAnswer:
        left = max(deadline - self._now(), 0.1)
        fetching = asyncio.ensure_future(self._fetch(endpoint, call, identity, left))
        down: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[down] = endpoint
        try:
            while True:
                watched: set[asyncio.Future[Any]] = {fetching, down}
                await asyncio.wait(
                    watched, timeout=PROBE_AFTER, return_when=asyncio.FIRST_COMPLETED
                )
                if fetching.done():
                    return _outcome(fetching)
                if down.done() or not await self._alive(endpoint):
                    return NoAnswer("does not answer any more", sent=True)
        finally:
            del self._waiting[down]
            if not fetching.cancel() and not fetching.cancelled():
                fetching.exception()  # seen, also where the endpoint was left all the same

    def _fetch(
        self, endpoint: Endpoint, call: Call, identity: str, left: float
    ) -> Awaitable[HTTPResponse]:
        headers: dict[str, str] = {}
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        if call.method not in ("GET", "HEAD"):
            headers["Holdfast-Request"] = identity
            headers["Holdfast-Max-Age"] = f"{left:.1f}"
        arguments = dict(self._arguments(headers))
        arguments["request_timeout"] = left
        arguments["connect_timeout"] = min(left, PROBE_AFTER + PROBE_TIMEOUT)
        fields = arguments["headers"] = HTTPHeaders(arguments.get("headers") or {})
        for value in call.after:
            fields.add("Holdfast-After", value)
        request = HTTPRequest(
            endpoint.url + call.path, method=call.method, body=call.body, **arguments
        )
        return self._http.fetch(request, raise_error=False)

    async def _alive(self, endpoint: Endpoint) -> bool:
        """Whether anything answers there; a gateway of another make says 404, which will do."""
        arguments = dict(self._arguments({}))
        arguments.update(connect_timeout=PROBE_TIMEOUT, request_timeout=PROBE_TIMEOUT)
        try:
            await self._http.fetch(
                HTTPRequest(endpoint.url + "/livez", **arguments), raise_error=False
            )
        except (HTTPClientError, OSError):
            return False
        return True

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class _Unsafe(Unanswered):
    """It may have been carried out: not to be sent again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, response=None, wait=None)


def _outcome(fetching: asyncio.Future[HTTPResponse]) -> HTTPResponse | NoAnswer:
    error = fetching.exception()
    if error is None:
        return fetching.result()
    if isinstance(error, HTTPTimeoutError):
        return NoAnswer(str(error), sent="during request" in str(error))
    if isinstance(error, HTTPClientError):
        return NoAnswer(str(error), sent=True)
    if isinstance(error, (ConnectionRefusedError, gaierror)):
        return NoAnswer(str(error), sent=False)
    if isinstance(error, OSError):
        return NoAnswer(str(error), sent=True)
    raise error
