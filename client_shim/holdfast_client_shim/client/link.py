"""One manager's way to the gateways: REST calls and streams, made in the background thread.

It has a gateway client of its own and not jupyter_server's singleton: in a notebook server that
one belongs to the server's event loop.
"""

# jupyter_server's client has few annotations:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import uuid
from logging import Logger
from typing import Any, Final

from tornado import web
from traitlets.config import Config

from ..server.client import HoldfastGatewayClient
from .background import Background, background
from .environment import kernel_environment
from .leg import ProgramLeg

#: An interrupt that comes later than this many seconds would stop some other cell.
INTERRUPT_BUDGET: Final = 10.0
#: Seconds for taking back a start that was not answered.
TAKE_BACK_BUDGET: Final = 5.0


class GatewayRefused(Exception):
    """The gateway said no, or none answered. ``status``: HTTP's, 503 when none answered."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class GatewayLink:
    """Made, used and closed from the program's threads; works in the background one."""

    def __init__(self, config: Config, log: Logger) -> None:
        """Raises ValueError when no gateway is configured or its URL is malformed."""
        self.background: Background = background()
        self._log = log
        self._client: HoldfastGatewayClient = self.background.call(self._make, config)

    def __repr__(self) -> str:
        return f"<GatewayLink {self._client.pool!r}>"

    def _make(self, config: Config) -> HoldfastGatewayClient:
        client = HoldfastGatewayClient(config=config, log=self._log)
        if not client.url:
            raise ValueError(
                "no gateway is configured: set JUPYTER_GATEWAY_URL or HOLDFAST_GATEWAY_URLS"
            )
        _ = client.pool  # reads the URLs
        return client

    async def start(
        self, name: str, *, env: dict[str, str] | None = None, cwd: object = None
    ) -> dict[str, Any]:
        """Start a kernel and return its model. Raises GatewayRefused.

        The kernel's id goes with the call, so it can be repeated; when the outcome is not known
        in the end, the kernel that may be there is deleted.
        """
        return await self.background.run(self._start(name, env or {}, cwd))

    async def _start(self, name: str, env: dict[str, str], cwd: object) -> dict[str, Any]:
        client, kernel_id = self._client, str(uuid.uuid4())
        given = kernel_environment(
            os.environ, env, kernel_id=kernel_id, allowed=client.allowed_envs,
            user=client.http_user, cwd=cwd,
        )  # fmt: skip
        body = {"name": name, "env": given}
        try:
            model = await self._json("POST", client.kernels_endpoint, body=body)
        except GatewayRefused as refusal:
            if refusal.status >= 500:
                await self._take_back(kernel_id)
            raise
        except asyncio.CancelledError:
            taking = asyncio.ensure_future(self._take_back(kernel_id))
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(taking)
            raise
        assert isinstance(model, dict)
        return model

    async def _take_back(self, kernel_id: str) -> None:
        path = self._client.kernel_path(kernel_id)
        with contextlib.suppress(GatewayRefused):
            await self._json("DELETE", path, budget=TAKE_BACK_BUDGET)

    async def model(self, kernel_id: str) -> dict[str, Any] | None:
        """The kernel's model; None when the gateway says that there is none.

        Raises GatewayRefused when it cannot tell.
        """
        try:
            found = await self.background.run(
                self._json("GET", self._client.kernel_path(kernel_id))
            )
        except GatewayRefused as refusal:
            if refusal.status == 404:
                return None
            raise
        return found if isinstance(found, dict) else None

    async def interrupt(self, kernel_id: str) -> None:
        """Interrupt it, after everything that was sent to it before. Raises GatewayRefused."""
        await self.background.run(self._act(kernel_id, "interrupt", INTERRUPT_BUDGET))

    async def restart(self, kernel_id: str) -> None:
        """Restart it, once. Raises GatewayRefused."""
        await self.background.run(self._act(kernel_id, "restart", None))

    async def delete(self, kernel_id: str) -> None:
        """End it; one that is gone already is no error. Raises GatewayRefused."""
        try:
            await self.background.run(self._json("DELETE", self._client.kernel_path(kernel_id)))
        except GatewayRefused as refusal:
            if refusal.status != 404:
                raise

    def attach(self, kernel_id: str, session_id: str) -> ProgramLeg:
        """Join a session of the kernel."""
        return self.background.call(self._attach, kernel_id, session_id)

    def _attach(self, kernel_id: str, session_id: str) -> ProgramLeg:
        leg = ProgramLeg(self.background)
        leg.attach(self._client.streams.enter(kernel_id, session_id))
        return leg

    def detach(self, kernel_id: str, session_id: str, leg: ProgramLeg) -> None:
        """Leave it; what was not sent yet is dropped with it. Idempotent."""
        self.background.call(self._detach, kernel_id, session_id, leg)

    def _detach(self, kernel_id: str, session_id: str, leg: ProgramLeg) -> None:
        leg.detach()
        for stream in self._client.streams.of_kernel(kernel_id):
            if stream.session_id == session_id and not stream.attached:
                self._client.streams.drop(stream)

    def send(self, kernel_id: str, session_id: str, data: bytes) -> None:
        """Pass one message (v1) on to the kernel."""
        self.background.soon(self._send, kernel_id, session_id, data)

    def _send(self, kernel_id: str, session_id: str, data: bytes) -> None:
        for stream in self._client.streams.of_kernel(kernel_id):
            if stream.session_id == session_id:
                stream.from_notebook(data)

    def trouble(self, kernel_id: str) -> str:
        """How its connection is, in words for people; empty when nothing is known."""
        return self.background.call(self._trouble, kernel_id)

    def _trouble(self, kernel_id: str) -> str:
        for stream in self._client.streams.of_kernel(kernel_id):
            status = stream.monitor.status
            return f"{status.state.value}: {status.reason}".rstrip(": ")
        return ""

    def close(self) -> None:
        """End the streams and what else goes on. Idempotent; does not wait."""
        self.background.soon(self._close)

    def _close(self) -> None:
        task = self.background.loop.create_task(self._client.stop())
        self._closing = task  # kept, or it might be collected before it has run

    async def _act(self, kernel_id: str, action: str, budget: float | None) -> None:
        after = await self._client.streams.after(kernel_id)
        path = self._client.kernel_path(kernel_id, action)
        await self._json("POST", path, body={}, budget=budget, after=after)

    async def _json(self, method: str, path: str, **options: Any) -> object:
        try:
            response = await self._client.request(method, path, **options)
        except web.HTTPError as error:
            text = error.log_message or str(error)
            raise GatewayRefused(text, status=error.status_code) from error
        return json.loads(response.body) if response.body else None
