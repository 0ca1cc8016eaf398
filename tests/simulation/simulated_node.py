"""A compute node without machines: a launcher and its keepers, with the fakes' rules.

What the fakes of ``support.fake_launcher`` decide is decided there; here their calls arrive over
the simulated network, every effect is noted for the judges, and what real launchers do besides is
added: a keeper exits after its shutdown, a buried start never begins again, and a keeper that
knows a higher token tells its launcher.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from holdfast_protocol.fencing import Token
from holdfast_proxy.ownership.calls.calling import Answer, CallError, Target
from simulation.simulated_loop import Process
from simulation.simulated_network import Network, Server
from support.fake_launcher import FakeKeeper, FakeLauncher, refuse


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that a call did. ``fences``: what launcher and keeper (None: there was none) had
    acknowledged before it."""

    at: float
    kernel_id: str
    node: str
    what: str
    token: Token
    nonce: str
    fences: tuple[Token | None, Token | None]
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    """As much of a web.Request as the fakes' handlers read."""

    headers: Mapping[str, str]
    match_info: Mapping[str, str]
    body: Mapping[str, Any] | None

    async def json(self) -> Any:
        return json.loads(json.dumps(self.body))

    @property
    def token(self) -> Token | None:
        text = self.headers.get("Holdfast-Fence")
        return None if text is None else Token.parse(text)


class _Served(Server):
    """The handlers of a fake, by their routes."""

    def __init__(self, fake: Any, name: str, host: str, process: Process) -> None:
        super().__init__(name, host, process)
        self._fake = fake
        self._routes = [
            (route.method, re.compile(_pattern(route.path)), route.handler)
            for route in fake.routes()
        ]

    async def handle(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> Answer:
        if headers.get("Authorization") != f"Bearer {self._fake.credential}":
            return _answer(refuse(401, "unauthorized", "wrong credential"))
        for known, pattern, handler in self._routes:
            found = pattern.fullmatch(path.partition("?")[0])
            if known == method and found is not None:
                return _answer(await handler(_Request(headers, found.groupdict(), body)))
        return _answer(refuse(404, "no_such_path", path))


class SimulatedKeeper(FakeKeeper):
    """``node`` is set by the one that makes it."""

    node: SimulatedLauncher

    async def open(self) -> None:
        self.port = self.node.next_port()
        name = f"keeper {self.kernel_id[:8]} on {self.node.launcher_id}"
        served = _Served(self, name, self.node.launcher_id, self.node.process)
        self.node.network.listen(self.url, served)

    async def close(self) -> None:
        self.node.network.close(self.url)

    @property
    def runs(self) -> bool:
        """There is a kernel process."""
        return self.kernel.incarnation > 0 and self.kernel.execution_state != "dead"

    async def _start(self, request: Any) -> web.Response:
        return await self._noted("start", request, super()._start)

    async def _restart(self, request: Any) -> web.Response:
        return await self._noted("restart", request, super()._restart)

    async def _shutdown(self, request: Any) -> web.Response:
        answer = await self._noted("shutdown", request, super()._shutdown)
        if self.kernel.execution_state == "dead":  # it exits once it has answered
            self.node.loop.call_soon(self.node.exited, self)
        return answer

    async def _noted(self, what: str, request: _Request, handler: Any) -> web.Response:
        fences, done = self.node.fences_of(self.kernel_id), self.count(what)
        answer: web.Response = await handler(request)
        if self.count(what) > done:
            self.node.note(self.kernel_id, what, request, self.nonce, fences)
        return answer


class SimulatedLauncher(FakeLauncher):
    """One node's launcher. ``tell`` is called with each effect."""

    def __init__(
        self, name: str, network: Network, process: Process, tell: Callable[[Effect], None]
    ) -> None:
        super().__init__(name)
        self.network = network
        self.process = process
        self.loop = network.loop
        self.keeper_type = type("Keeper", (SimulatedKeeper,), {"node": self})
        self.buried: set[str] = set()
        self._tell = tell
        self._ports = 0

    def next_port(self) -> int:
        self._ports += 1
        # A range of its own for each node.
        return 20_000 + 1000 * int(self.launcher_id.rpartition("-")[2]) + self._ports

    async def open(self) -> None:
        self.port = self.port or self.next_port()
        self.listen()

    def listen(self) -> None:
        if self.url not in self.network.servers:
            served = _Served(self, self.launcher_id, self.launcher_id, self.process)
            self.network.listen(self.url, served)

    def exited(self, keeper: SimulatedKeeper) -> None:
        """The keeper's process is gone, and the launcher knows it."""
        self.network.close(keeper.url)
        if self.keepers.get(keeper.kernel_id) is keeper:
            del self.keepers[keeper.kernel_id]
            self.gone[keeper.kernel_id] = keeper.nonce

    def fences_of(self, kernel_id: str) -> tuple[Token | None, Token | None]:
        keeper = self.keepers.get(kernel_id)
        return self.fence_of(kernel_id).fence, None if keeper is None else keeper.fenced.fence

    def note(
        self,
        kernel_id: str,
        what: str,
        request: _Request,
        nonce: str,
        fences: tuple[Token | None, Token | None],
    ) -> None:
        token = request.token
        assert token is not None
        request_id = request.headers.get("Holdfast-Request")
        self._tell(
            Effect(
                self.loop.time(),
                kernel_id,
                self.launcher_id,
                what,
                token,
                nonce,
                fences,
                request_id,
            )
        )

    async def _put(self, request: Any) -> web.Response:
        kernel_id = request.match_info["id"]
        if request.body["nonce"] in self.buried:
            return refuse(409, "nonce_mismatch", "this start was deleted")
        fences, launches = self.fences_of(kernel_id), self.count("launch")
        answer = await super()._put(request)
        if self.count("launch") > launches:
            self.note(kernel_id, "launch", request, request.body["nonce"], fences)
        return answer

    async def _delete(self, request: Any) -> web.Response:
        kernel_id = request.match_info["id"]
        fences, keeper = self.fences_of(kernel_id), self.keepers.get(kernel_id)
        if keeper is not None and fences[1] is not None and request.token < fences[1]:
            # The keeper knows an owner that the launcher has not heard of, and says so.
            self.fence_of(kernel_id).fence = max(fences[1], fences[0] or fences[1])
        answer = await super()._delete(request)
        if answer.status == 200:
            if kernel_id in self.gone:
                self.buried.add(self.gone[kernel_id])
            if keeper is not None:
                self.note(kernel_id, "end", request, keeper.nonce, fences)
        return answer


def _pattern(path: str) -> str:
    with_rest = path.replace("{path:.*}", "(?P<path>.*)")
    return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", with_rest)


def _answer(response: web.Response) -> Answer:
    body = response.body
    return Answer(response.status, response.headers, body if isinstance(body, bytes) else b"")


async def heartbeats(launcher: SimulatedLauncher, proxies: Callable[[], list[str]]) -> None:
    """Every two seconds, to any proxy; the next one at once when one does not answer."""
    credential, body = "join-token", None
    call = launcher.network.caller(launcher.launcher_id)
    turn = 0
    while True:
        urls = proxies()
        for _ in range(len(urls)):
            turn += 1
            body = launcher.heartbeat()
            taken = await _beat(call, urls[turn % len(urls)], launcher, credential, body)
            if taken is not None:
                credential = taken or credential
                break
        await asyncio.sleep(2.0)


async def _beat(
    call: Any, url: str, launcher: SimulatedLauncher, credential: str, body: Mapping[str, Any]
) -> str | None:
    """The credential that it gave ("" when we have one), or None when it did not take it."""
    try:
        answer = await call(
            "POST",
            Target(url=url, bearer=credential),
            f"/holdfast/v1/launchers/{launcher.launcher_id}",
            timeout=2.0,
            body=body,
        )
    except CallError:
        return None
    if not answer.ok:
        return None
    return str(answer.document.get("credential") or "")
