"""jupyter_server's gateway managers, speaking through ``HoldfastGatewayClient``.

What they change: a kernel is forgotten on 404 and on nothing else, a start carries the kernel's
id so that it can be repeated, interrupts and restarts say which messages they come after, and
stopping the server does not end kernels behind Holdfast.
"""

# jupyter_server's managers have no annotations, and are coroutines where jupyter_client's are not:
# mypy: disable-error-code="no-untyped-call, override"

from __future__ import annotations

import json
import os
import uuid
from typing import Any

from jupyter_server.gateway.managers import (
    GatewayKernelManager,
    GatewayKernelSpecManager,
    GatewayMappingKernelManager,
)
from jupyter_server.services.kernels.kernelmanager import emit_kernel_action_event
from jupyter_server.utils import url_path_join
from tornado import web
from traitlets import default

from .client import HoldfastGatewayClient, path_segment

#: An interrupt that comes later than this many seconds would stop some other cell.
INTERRUPT_BUDGET = 10.0


def _client() -> HoldfastGatewayClient:
    client: HoldfastGatewayClient = HoldfastGatewayClient.instance()
    return client


class HoldfastMappingKernelManager(GatewayMappingKernelManager):
    """The kernels that this server started."""

    @default("kernel_manager_class")
    def _default_kernel_manager_class(self) -> str:
        return "holdfast_client_shim.server.managers.HoldfastKernelManager"

    async def list_kernels(self, **kwargs: Any) -> list[dict[str, Any]]:
        """Models of all our kernels; raises HTTPError when the gateway cannot tell now."""
        response = await _client().request("GET", _client().kernels_endpoint)
        listed = {model["id"]: model for model in json.loads(response.body)}
        models = []
        for kernel_id, manager in list(self._kernels.items()):
            model = await self._model_of(manager, listed.get(kernel_id))
            if model:
                models.append(model)
            else:
                self.log.warning("holdfast: kernel %s is gone from the gateway", kernel_id)
                self.remove_kernel(kernel_id)
        return models

    async def _model_of(self, manager: Any, listed: dict[str, Any] | None) -> Any:
        try:
            return await manager.refresh_model(listed)
        except web.HTTPError as error:
            # Absent from the list, and its own state cannot be told now: it is kept.
            self.log.warning("holdfast: kernel %s: %s", manager.kernel_id, error.log_message)
            return manager.kernel

    def remove_kernel(self, kernel_id: str) -> Any:
        """Forget a kernel that is gone, and tell the notebooks that still wait for it."""
        _client().streams.kernel_gone(kernel_id, "the kernel is gone")
        return super().remove_kernel(kernel_id)

    async def shutdown_all(self, now: bool = False) -> None:
        """Called when this server stops: kernels behind Holdfast stay unless told otherwise."""
        wanted = _client().shutdown_on_exit
        if wanted is None:
            wanted = not _client().is_holdfast
        if wanted:
            await super().shutdown_all(now=now)
            _client().stop()
            return
        kernels = list(self._kernels)
        _client().stop()
        self._kernels.clear()
        if kernels:
            self.log.info("holdfast: these kernels stay: %s", ", ".join(kernels))


class HoldfastKernelManager(GatewayKernelManager):
    """One kernel behind the gateway."""

    async def refresh_model(self, model: dict[str, Any] | None = None) -> Any:
        """The kernel's model, asked for when not given; None when the gateway says 404."""
        if model is None:
            try:
                response = await _client().request("GET", self._path())
            except web.HTTPError as error:
                if error.status_code != 404:
                    raise
                self.kernel = None
                return None
            model = json.loads(response.body)
        return await super().refresh_model(model)

    @emit_kernel_action_event(success_msg="Kernel {kernel_id} was started.")
    async def start_kernel(self, **kwargs: Any) -> None:
        """Start a kernel, or take the existing one that ``kernel_id`` names."""
        existing = kwargs.get("kernel_id")
        if existing is None:
            body = {"name": kwargs.get("kernel_name", "python3"), "env": self._environment(kwargs)}
            response = await _client().request("POST", _client().kernels_endpoint, body=body)
            model = json.loads(response.body)
            self._identify(str(model["id"]))
            await super().refresh_model(model)
        else:
            self._identify(str(existing))
            await self.refresh_model()
        self.log.info("holdfast: kernel %s, arguments %s", self.kernel_id, sorted(kwargs))

    @emit_kernel_action_event(success_msg="Kernel {kernel_id} was shutdown.")
    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """End the kernel. One that is gone already is no error."""
        if not self.has_kernel:
            return
        try:
            await _client().request("DELETE", self._path())
        except web.HTTPError as error:
            if error.status_code != 404:
                raise

    @emit_kernel_action_event(success_msg="Kernel {kernel_id} was restarted.")
    async def restart_kernel(self, **kwargs: Any) -> None:
        """Restart the kernel, once, after everything that was sent to it before."""
        if self.has_kernel:
            await self._act("restart")

    @emit_kernel_action_event(success_msg="Kernel {kernel_id} was interrupted.")
    async def interrupt_kernel(self) -> None:
        """Interrupt the kernel, after everything that was sent to it before."""
        if self.has_kernel:
            await self._act("interrupt", budget=INTERRUPT_BUDGET)

    async def is_alive(self) -> bool:
        """Whether the gateway has the kernel; one that cannot be asked about now is alive."""
        if not self.has_kernel:
            return False
        try:
            return await self.refresh_model() is not None
        except web.HTTPError:
            return True

    async def _act(self, action: str, *, budget: float | None = None) -> None:
        client = _client()
        path = client.kernel_path(str(self.kernel_id), action)
        after = await client.streams.after(str(self.kernel_id))
        await client.request("POST", path, body={}, budget=budget, after=after)

    def _path(self) -> str:
        return _client().kernel_path(str(self.kernel_id))

    def _identify(self, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        self.kernel_url = url_path_join(self.kernels_url, path_segment(kernel_id))

    @staticmethod
    def _environment(kwargs: dict[str, Any]) -> dict[str, str]:
        """What jupyter_server sends, and a KERNEL_ID of ours: the server's own would be reused."""
        client = _client()
        if client.http_user:
            os.environ.setdefault("KERNEL_USERNAME", client.http_user)
        allowed = client.allowed_envs.split(",")
        given = {**os.environ, "KERNEL_ID": str(uuid.uuid4()), **(kwargs.get("env") or {})}
        env = {k: v for k, v in given.items() if k.startswith("KERNEL_") or k in allowed}
        if kwargs.get("cwd") is not None:
            env.setdefault("KERNEL_WORKING_DIR", str(kwargs["cwd"]))
        return env


class HoldfastKernelSpecManager(GatewayKernelSpecManager):
    """The kernelspecs that the gateway offers."""

    async def list_kernel_specs(self) -> Any:
        """Jupyter's kernelspecs model, with resources under this server's own base URL."""
        response = await _client().request("GET", self._endpoint())
        return self._replace_path_kernelspec_resources(json.loads(response.body))

    async def get_kernel_spec(self, kernel_name: str, **kwargs: Any) -> Any:
        """One kernelspec. Raises KeyError when there is none of this name."""
        path = self._endpoint(path_segment(str(kernel_name)))
        try:
            response = await _client().request("GET", path)
        except web.HTTPError as error:
            if error.status_code == 404:
                raise KeyError(f"no kernelspec {kernel_name} at the gateway") from None
            raise
        return json.loads(response.body)

    async def get_kernel_spec_resource(self, kernel_name: str, path: str) -> bytes | None:
        """A kernelspec's file, or None when there is none."""
        base = _client().kernelspecs_resource_endpoint
        try:
            response = await _client().request(
                "GET", url_path_join(base, path_segment(str(kernel_name)), str(path))
            )
        except web.HTTPError as error:
            if error.status_code == 404:
                return None
            raise
        return response.body

    @staticmethod
    def _endpoint(name: str = "") -> str:
        path = str(url_path_join(_client().kernelspecs_endpoint, name)).rstrip("/")
        user = os.environ.get("KERNEL_USERNAME")
        return f"{path}?user={path_segment(user)}" if user else path
