"""A keeper small enough to misbehave on request: the launcher's tests run it in a zygote.

``KERNEL_FAKE`` in its kernel's environment says how: ``exit`` ends before it is ready, ``hang``
never becomes ready, ``deaf`` ignores ``/v1/shutdown``, ``wait`` becomes ready when the file
``KERNEL_GATE`` exists. Its kernel is a ``sleep``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.processes import ProcessId
from holdfast_launcher.state.statefiles import write_json


def run(config: KeeperConfig, ready_fd: int) -> int:
    behaviour = config.env.get("KERNEL_FAKE")
    if behaviour == "exit":
        print("small keeper: no more disk", file=sys.stderr)
        return 7
    if behaviour == "hang":
        time.sleep(600)
    while behaviour == "wait" and not os.path.exists(config.env["KERNEL_GATE"]):
        time.sleep(0.02)
    return asyncio.run(SmallKeeper(config, behaviour).serve(ready_fd))


class SmallKeeper:
    def __init__(self, config: KeeperConfig, behaviour: str | None) -> None:
        self.config = config
        self.behaviour = behaviour
        self.kernel: subprocess.Popen[bytes] | None = None
        self.highest = [0, 0]
        self.port = 0
        self.stop = asyncio.Event()

    async def serve(self, ready_fd: int) -> int:
        app = web.Application(middlewares=[self.authenticate])
        app.router.add_get("/v1/kernel", self.state)
        app.router.add_post("/v1/start", self.start)
        app.router.add_post("/v1/fence", self.fence)
        app.router.add_post("/v1/shutdown", self.shutdown)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, self.config.host, 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self.write("idle")
        with contextlib.suppress(BrokenPipeError):  # the launcher died; another will find us
            os.write(ready_fd, b"1")
        os.close(ready_fd)
        await self.stop.wait()
        await runner.cleanup()
        return 0

    @web.middleware
    async def authenticate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.config.credential}":
            return web.json_response({"reason": "unauthorized"}, status=401)
        result: web.StreamResponse = await handler(request)
        return result

    def write(self, execution_state: str) -> None:
        me = ProcessId.of(os.getpid())
        kernel = None if self.kernel is None else ProcessId.of(self.kernel.pid)
        document = {
            "kernel_id": self.config.kernel_id,
            "nonce": self.config.nonce,
            "pid": os.getpid(),
            "start_time": me.start_time if me else None,
            "endpoint": {"host": self.config.host, "port": self.port},
            "fingerprint": None,
            "credential": self.config.credential,
            "epoch": "0" * 32,
            "spec": self.config.spec,
            "user": self.config.user,
            "kernel": kernel
            and {"pid": kernel.pid, "pgid": kernel.pid, "start_time": kernel.start_time},
        }
        directory = Path(self.config.state_dir)
        write_json(directory / "keeper.json", document)
        activity = {
            "execution_state": execution_state,
            "last_activity": "2026-01-01T00:00:00.000000Z",
            "connections": 1,
            "reason": None,
        }
        write_json(directory / "activity.json", activity)

    async def state(self, _request: web.Request) -> web.Response:
        return web.json_response({"kernel_id": self.config.kernel_id, "nonce": self.config.nonce})

    async def start(self, request: web.Request) -> web.Response:
        # With a child of its own in another session, as a kernel's !command may be.
        script = "setsid sleep 600 & exec sleep 600"
        self.kernel = subprocess.Popen(  # noqa: ASYNC220 - its pid is what the tests need
            ["/bin/sh", "-c", script], env=self.config.env, start_new_session=True
        )
        if (await request.json()).get("write", True):
            self.write("busy")
        return web.json_response({"pid": self.kernel.pid})

    async def fence(self, request: web.Request) -> web.Response:
        self.highest = [int(part) for part in request.headers["Holdfast-Fence"].split(".")]
        return web.json_response({"fence": self.highest})

    async def shutdown(self, request: web.Request) -> web.Response:
        fence = [int(part) for part in request.headers["Holdfast-Fence"].split(".")]
        if fence < self.highest:
            body = {"reason": "stale_token", "fence": self.highest}
            return web.json_response(body, status=412)
        assert json.loads(await request.text()) == {"now": True}
        if self.behaviour != "deaf":
            if self.kernel is not None:
                self.kernel.kill()
            self.stop.set()
        return web.json_response({})
