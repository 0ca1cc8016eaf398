"""jupyter_server's gateway managers, speaking through ``HoldfastGatewayClient``.

What they change: a kernel is forgotten on 404 and on nothing else, a start carries the kernel's
id so that it can be repeated and is remembered before it goes out, interrupts and restarts say
which messages they come after, and stopping the server does not end kernels behind Holdfast.
"""

# jupyter_server's managers have no annotations, and are coroutines where jupyter_client's are not:
# mypy: disable-error-code="no-untyped-call, override"

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from typing import Any

from jupyter_server.gateway.managers import (
    GatewayKernelManager,
    GatewayMappingKernelManager,
)
from jupyter_server.services.kernels.kernelmanager import emit_kernel_action_event
from jupyter_server.utils import url_path_join
from tornado import web
from traitlets import default

from .client import HoldfastGatewayClient, path_segment
from .state import KernelRow

_STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"
#: An interrupt that comes later than this many seconds would stop some other cell.
INTERRUPT_BUDGET = 10.0


def _client() -> HoldfastGatewayClient:
    client: HoldfastGatewayClient = HoldfastGatewayClient.instance()
    return client


class HoldfastMappingKernelManager(GatewayMappingKernelManager):
    """The kernels that this server started, in this run or an earlier one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # jupyter_server's is one dictionary for all instances
        self._kernels: dict[str, Any] = {}
        self._starting: dict[str, str] = {}

    @default("kernel_manager_class")
    def _default_kernel_manager_class(self) -> str:
        return "holdfast_client_shim.server.managers.HoldfastKernelManager"

    def rows(self) -> list[KernelRow]:
        """Every kernel of ours, and those whose start has not been answered yet."""
        rows = [KernelRow(id_, name, None) for id_, name in self._starting.items()]
        return rows + [
            KernelRow(kernel_id, str(manager.kernel["name"]), manager.kernel)
            for kernel_id, manager in self._kernels.items()
            if manager.kernel is not None and kernel_id not in self._starting
        ]

    def adopt(self, rows: list[KernelRow]) -> None:
        """Take in kernels of the last run, as they were last seen."""
        for row in rows:
            manager = self.kernel_manager_factory(parent=self, log=self.log)
            manager.adopt(row)
            self._kernels[row.kernel_id] = manager
        if rows and not self._initialized_culler:
            self.initialize_culler()

    async def start_begins(self, kernel_id: str, name: str) -> None:
        """A start is going out: if this server dies before the answer, the next one looks."""
        self._starting[kernel_id] = name
        memory = _client().memory
        if memory is not None:
            await memory.settle()

    def start_ended(self, kernel_id: str) -> None:
        """It was answered, for better or worse."""
        self._starting.pop(kernel_id, None)

    async def start_kernel(self, **kwargs: Any) -> str:
        """As jupyter_server's; remembered before the answer."""
        kernel_id = await super().start_kernel(**kwargs)
        memory = _client().memory
        if memory is not None:
            await memory.settle()
        return str(kernel_id)

    async def list_kernels(self, **kwargs: Any) -> list[dict[str, Any]]:
        """Models of all our kernels; raises HTTPError when the gateway cannot tell now."""
        listed = await self._listed()
        models = []
        for kernel_id, manager in list(self._kernels.items()):
            model = await self._model_of(manager, listed.get(kernel_id))
            if model:
                models.append(model)
            else:
                self.log.warning("holdfast: kernel %s is gone from the gateway", kernel_id)
                self.remove_kernel(kernel_id)
        return models

    @staticmethod
    async def _listed() -> dict[str, dict[str, Any]]:
        """The gateway's list; empty where it does not give one: then each is asked for."""
        try:
            response = await _client().request("GET", _client().kernels_endpoint)
        except web.HTTPError as error:
            if error.status_code == 403 and not _client().is_holdfast:
                return {}  # as Kernel Gateway answers unless it is told otherwise
            raise
        return {model["id"]: model for model in json.loads(response.body)}

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
        removed = super().remove_kernel(kernel_id)
        _client().noted()
        return removed

    async def shutdown_all(self, now: bool = False) -> None:
        """Called when this server stops: kernels behind Holdfast stay unless told otherwise."""
        client = _client()
        if not client.kernels_stay:
            await super().shutdown_all(now=now)
            await client.stop()
            return
        kernels = list(self._kernels)
        remembered = client.memory is not None
        await client.stop()
        self._kernels.clear()
        if not kernels:
            return
        self.log.info("holdfast: these kernels stay: %s", ", ".join(kernels))
        self.log.info(
            "holdfast: to end one, %ssend DELETE %s/api/kernels/<id> to the gateway",
            "start this server again with the same root directory and shut it down there, or "
            if remembered
            else "",
            client.pool.preferred.name,
        )


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
        """Start a kernel, or take the one that ``kernel_id`` names. None there: it gets that id."""
        existing = kwargs.get("kernel_id")
        if existing is not None:
            self._identify(str(existing))
            if await self.refresh_model() is not None:
                self.log.info("holdfast: kernel %s, which there was already", self.kernel_id)
                return
        name = str(kwargs.get("kernel_name") or "python3")
        env = self._environment(kwargs)
        try:
            await self._begin(env["KERNEL_ID"], name)
            body = {"name": name, "env": env}
            response = await _client().request("POST", _client().kernels_endpoint, body=body)
        finally:
            self._end_of_start(env["KERNEL_ID"])
        model = json.loads(response.body)
        self._identify(str(model["id"]))
        await super().refresh_model(model)
        self.log.info("holdfast: kernel %s, arguments %s", self.kernel_id, sorted(kwargs))

    def adopt(self, row: KernelRow) -> None:
        """Be a kernel of the last run, as it was last seen."""
        self._identify(row.kernel_id)
        now = datetime.now(UTC)
        if row.model is None:
            stamp = now.strftime(_STAMP)
            self.kernel = {"id": row.kernel_id, "name": row.name, "last_activity": stamp,
                           "execution_state": "starting", "connections": 0}  # fmt: skip
        else:
            self.kernel = {**row.model}
        self.execution_state = str(self.kernel["execution_state"])
        try:
            seen = datetime.fromisoformat(str(self.kernel["last_activity"]))
            self.last_activity = seen.astimezone(UTC)
        except ValueError:
            self.last_activity = now

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

    async def _begin(self, kernel_id: str, name: str) -> None:
        if isinstance(self.parent, HoldfastMappingKernelManager):
            await self.parent.start_begins(kernel_id, name)

    def _end_of_start(self, kernel_id: str) -> None:
        if isinstance(self.parent, HoldfastMappingKernelManager):
            self.parent.start_ended(kernel_id)

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
        asked = dict(kwargs.get("env") or {})
        # a session's start brings the server's whole environment along, its own id included
        chosen = asked.get("KERNEL_ID")
        if chosen == os.environ.get("KERNEL_ID"):
            chosen = None
        kernel_id = str(kwargs.get("kernel_id") or chosen or uuid.uuid4())
        given = {**os.environ, **asked, "KERNEL_ID": kernel_id}
        env = {k: v for k, v in given.items() if k.startswith("KERNEL_") or k in allowed}
        if kwargs.get("cwd") is not None:
            env.setdefault("KERNEL_WORKING_DIR", str(kwargs["cwd"]))
        return env
