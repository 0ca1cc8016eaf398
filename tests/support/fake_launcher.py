"""A launcher and its keepers as HTTP servers without kernels, after docs/reference/wire.md.

They keep the rules that ownership relies on (fences never lowered, idempotent by nonce, answers
remembered by request id) and record what reached them, so that a test can say "this had no
effect". Faults: ``before`` hooks run before a call is handled and may raise ``Drop`` to close the
connection without an answer, before or after the call acted.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from holdfast_protocol.fencing import Token

STAMP = "2026-01-01T00:00:00.000000Z"
SPECS = {
    "default": "python3",
    "kernelspecs": {
        "python3": {
            "name": "python3",
            "spec": {"display_name": "Python 3", "language": "python", "argv": []},
            "resources": {"logo-64x64": "/kernelspecs/python3/logo-64x64.png"},
        }
    },
}

Hook = Callable[[str], Awaitable[None]]


class Drop(Exception):
    """Close the connection instead of answering."""


class Fenced:
    """Remembers the highest acknowledged token."""

    def __init__(self) -> None:
        self.fence: Token | None = None

    def check(self, request: web.Request) -> web.Response | None:
        text = request.headers.get("Holdfast-Fence")
        if text is None:
            return refuse(400, "no_token", "Holdfast-Fence is missing")
        token = Token.parse(text)
        if self.fence is not None and token < self.fence:
            fence = [self.fence.era, self.fence.revision]
            body = {"reason": "stale_token", "message": "lower", "fence": fence}
            return web.json_response(body, status=412)
        self.fence = token
        return None


class Server:
    """An aiohttp server on a loopback port of its own, with calls recorded."""

    def __init__(self, credential: str) -> None:
        self.credential = credential
        self.calls: list[str] = []
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.port = 0
        self._runner: web.AppRunner | None = None

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    async def open(self) -> None:
        app = web.Application(middlewares=[self._around])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, call: str) -> int:
        return self.calls.count(call)

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.credential}":
            return refuse(401, "unauthorized", "wrong credential")
        call = f"{request.method} {request.path}"
        try:
            if self.before is not None:
                await self.before(call)
            response: web.StreamResponse = await handler(request)
            if self.after is not None:
                await self.after(call)
        except Drop:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return response


@dataclass
class FakeKernel:
    """What a keeper knows of its kernel."""

    incarnation: int = 0
    execution_state: str = "starting"
    reason: str | None = None
    interrupts: int = 0
    answers: dict[str, Any] = field(default_factory=dict)


class FakeKeeper(Server):
    """One keeper."""

    def __init__(self, kernel_id: str, nonce: str, spec: str, user: str) -> None:
        super().__init__(secrets.token_hex(8))
        self.kernel_id, self.nonce, self.spec, self.user = kernel_id, nonce, spec, user
        self.epoch = secrets.token_hex(16)
        self.kernel = FakeKernel()
        self.fenced = Fenced()
        self.start_error: str | None = None
        self.after_headers: list[str] = []

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/kernel", self._state),
            web.post("/v1/fence", self._fence),
            web.post("/v1/start", self._start),
            web.post("/v1/interrupt", self._interrupt),
            web.post("/v1/restart", self._restart),
            web.post("/v1/shutdown", self._shutdown),
        ]

    def state(self) -> dict[str, Any]:
        fence = self.fenced.fence or Token(0, 0)
        return {
            "kernel_id": self.kernel_id,
            "nonce": self.nonce,
            "spec": self.spec,
            "epoch": self.epoch,
            "incarnation": self.kernel.incarnation,
            "execution_state": self.kernel.execution_state,
            "reason": self.kernel.reason,
            "last_activity": STAMP,
            "connections": 1,
            "fence": [fence.era, fence.revision],
            "kernel_session": f"session-{self.kernel.incarnation}",
            "pid": 1,
            "log": {"head": 0, "floor": 0, "bytes": 0},
        }

    async def _state(self, _: web.Request) -> web.Response:
        return web.json_response(self.state())

    async def _fence(self, request: web.Request) -> web.Response:
        refused = self.fenced.check(request)
        if refused is not None:
            return refused
        assert self.fenced.fence is not None
        self.calls.append("fence")
        return web.json_response({"fence": [self.fenced.fence.era, self.fenced.fence.revision]})

    async def _start(self, request: web.Request) -> web.Response:
        refused = self.fenced.check(request)
        if refused is not None:
            return refused
        if (await request.json())["nonce"] != self.nonce:
            return refuse(409, "nonce_mismatch", "another start")
        if self.start_error is not None:
            return refuse(500, "start_failed", self.start_error)
        if self.kernel.incarnation == 0:
            self.calls.append("start")
            self.kernel.incarnation = 1
            self.kernel.execution_state = "idle"
        return web.json_response(self.state())

    async def _interrupt(self, request: web.Request) -> web.Response:
        self.calls.append("interrupt")
        self.after_headers += request.headers.getall("Holdfast-After", [])
        self.kernel.interrupts += 1
        return web.json_response({})

    async def _restart(self, request: web.Request) -> web.Response:
        refused = self.fenced.check(request)
        if refused is not None:
            return refused
        request_id = request.headers.get("Holdfast-Request")
        if request_id is not None and request_id in self.kernel.answers:
            return web.json_response(self.kernel.answers[request_id])
        self.calls.append("restart")
        self.kernel.incarnation += 1
        if request_id is not None:
            self.kernel.answers[request_id] = self.state()
        return web.json_response(self.state())

    async def _shutdown(self, request: web.Request) -> web.Response:
        refused = self.fenced.check(request)
        if refused is not None:
            return refused
        self.calls.append("shutdown")
        self.kernel.execution_state = "dead"
        return web.json_response({})


class FakeLauncher(Server):
    """One launcher, whose keepers are here."""

    def __init__(self, launcher_id: str = "launcher-1") -> None:
        super().__init__(f"access-{launcher_id}")
        self.launcher_id = launcher_id
        self.keepers: dict[str, FakeKeeper] = {}
        self.gone: dict[str, str] = {}
        self.fences: dict[str, Fenced] = {}
        self.start_error: str | None = None
        self.specs: dict[str, Any] = SPECS
        self.counter = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.put("/v1/kernels/{id}", self._put),
            web.get("/v1/kernels/{id}", self._get),
            web.delete("/v1/kernels/{id}", self._delete),
            web.post("/v1/kernels/{id}/fence", self._fence),
            web.get("/v1/kernelspecs", self._specs),
            web.get("/v1/kernelspecs/{name}/{path:.*}", self._resource),
        ]

    async def close(self) -> None:
        await asyncio.gather(*(keeper.close() for keeper in self.keepers.values()))
        await super().close()

    def heartbeat(self, **changes: Any) -> dict[str, Any]:
        """The body of its next heartbeat."""
        self.counter += 1
        kernels: dict[str, Any] = {
            name: {
                "nonce": keeper.nonce,
                "alive": True,
                "reason": None,
                "execution_state": keeper.kernel.execution_state,
                "last_activity": STAMP,
                "connections": 1,
            }
            for name, keeper in self.keepers.items()
        }
        for name, nonce in self.gone.items():
            kernels[name] = {"nonce": nonce, "alive": False, "reason": "killed by the node"}
        return {
            "version": 1,
            "url": self.url,
            "fingerprint": None,
            "access_token": self.credential,
            "boot_id": "boot",
            "counter": self.counter,
            "engine": "local",
            "labels": {},
            "capacity": {"kernels": 50},
            "kernelspecs_digest": "digest-1",
            "kernels": kernels,
            **changes,
        }

    async def lose(self, kernel_id: str) -> None:
        """The keeper and its kernel are gone; the launcher knows it."""
        keeper = self.keepers.pop(kernel_id)
        self.gone[kernel_id] = keeper.nonce
        await keeper.close()

    async def adopt(self, kernel_id: str) -> FakeKeeper:
        """The keeper crashed and another one adopted the kernel: new port, epoch, credential."""
        old = self.keepers[kernel_id]
        await old.close()
        new = FakeKeeper(kernel_id, old.nonce, old.spec, old.user)
        new.kernel, new.fenced = old.kernel, old.fenced
        await new.open()
        self.keepers[kernel_id] = new
        return new

    def _handle(self, keeper: FakeKeeper) -> dict[str, Any]:
        return {
            "kernel_id": keeper.kernel_id,
            "nonce": keeper.nonce,
            "spec": keeper.spec,
            "user": keeper.user,
            "endpoint": {"host": "127.0.0.1", "port": keeper.port},
            "fingerprint": None,
            "credential": keeper.credential,
            "engine_handle": {"engine": "local", "pid": 1, "start_time": 1},
            "epoch": keeper.epoch,
            "alive": True,
            "reason": None,
        }

    def fence_of(self, kernel_id: str) -> Fenced:
        return self.fences.setdefault(kernel_id, Fenced())

    async def _put(self, request: web.Request) -> web.Response:
        kernel_id = request.match_info["id"]
        refused = self.fence_of(kernel_id).check(request)
        if refused is not None:
            return refused
        order = await request.json()
        self.calls.append("put")
        if self.start_error is not None:
            return refuse(404, "unknown_kernelspec", self.start_error)
        keeper = self.keepers.get(kernel_id)
        if keeper is not None and keeper.nonce != order["nonce"]:
            return refuse(409, "nonce_mismatch", "another incarnation lives")
        if keeper is None:
            self.calls.append("launch")
            keeper = FakeKeeper(kernel_id, order["nonce"], order["spec"], order["user"])
            await keeper.open()
            self.keepers[kernel_id] = keeper
        return web.json_response(self._handle(keeper))

    async def _get(self, request: web.Request) -> web.Response:
        kernel_id = request.match_info["id"]
        if kernel_id in self.keepers:
            return web.json_response(self._handle(self.keepers[kernel_id]))
        if kernel_id in self.gone:
            nonce = self.gone[kernel_id]
            return web.json_response({"alive": False, "reason": "killed", "nonce": nonce})
        return refuse(404, "no_such_kernel", "never known")

    async def _delete(self, request: web.Request) -> web.Response:
        kernel_id = request.match_info["id"]
        refused = self.fence_of(kernel_id).check(request)
        if refused is not None:
            return refused
        self.calls.append("delete")
        keeper = self.keepers.pop(kernel_id, None)
        if keeper is not None:
            self.gone[kernel_id] = keeper.nonce
            await keeper.close()
        return web.json_response({"gone": True})

    async def _fence(self, request: web.Request) -> web.Response:
        fenced = self.fence_of(request.match_info["id"])
        refused = fenced.check(request)
        if refused is not None:
            return refused
        assert fenced.fence is not None
        self.calls.append("fence")
        return web.json_response({"fence": [fenced.fence.era, fenced.fence.revision]})

    async def _specs(self, _: web.Request) -> web.Response:
        self.calls.append("specs")
        return web.json_response(self.specs)

    async def _resource(self, request: web.Request) -> web.Response:
        if request.match_info["path"] != "logo-64x64.png":
            return refuse(404, "no_such_file", "no such file")
        return web.Response(body=b"png", content_type="image/png")


def refuse(status: int, reason: str, message: str) -> web.Response:
    return web.json_response({"reason": reason, "message": message}, status=status)
