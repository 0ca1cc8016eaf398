"""A kernel manager for programs that run notebooks: its kernel is behind Holdfast.

It is an ``AsyncKernelManager`` because that is what nbclient asks for, and uses nothing of how
that one starts a process. What ends a kernel: ``shutdown_kernel``, and ``cleanup_resources`` for
one that was started here and has crashed. What does not: the end of this process without either.
"""

# jupyter_client's methods are declared as the blocking ones, which it makes of coroutines:
# mypy: disable-error-code="override"

from __future__ import annotations

import weakref
from typing import Any

from jupyter_client.client import KernelClient
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session
from traitlets import Type, default
from traitlets.config import Config

from .kernel_client import HoldfastKernelClient
from .link import GatewayLink, GatewayRefused

_SIGINT = 2
_SECTIONS = ("GatewayClient", "HoldfastGatewayClient")


class HoldfastKernelManager(AsyncKernelManager):
    """One kernel behind the gateways of ``JUPYTER_GATEWAY_URL`` and ``HOLDFAST_GATEWAY_URLS``, or
    of the configuration's ``GatewayClient`` and ``HoldfastGatewayClient``."""

    client_factory = Type(klass=KernelClient, config=True)
    #: As it was last seen; None before the start and after the end.
    kernel: dict[str, Any] | None = None

    _link: GatewayLink | None = None
    _ours = False

    @default("client_factory")
    def _client_factory_default(self) -> type:
        return HoldfastKernelClient

    @default("cache_ports")
    def _default_cache_ports(self) -> bool:
        return False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._clients: weakref.WeakSet[HoldfastKernelClient] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<HoldfastKernelManager {self.kernel_name} {self.kernel_id or 'not started'}>"

    @property
    def has_kernel(self) -> bool:
        """Whether a kernel was started and not shut down."""
        return self.kernel is not None

    @property
    def ipykernel(self) -> bool:
        """False: nbclient would give an ipykernel arguments, which no gateway passes on."""
        return False

    @property
    def link(self) -> GatewayLink:
        """The way to the gateways. Raises ValueError when none is configured."""
        if self._link is None:
            config = Config({name: self.config[name] for name in _SECTIONS if name in self.config})
            self._link = GatewayLink(config, self.log)
            weakref.finalize(self, self._link.close)
        return self._link

    def client(self, **kwargs: Any) -> HoldfastKernelClient:
        """A client of the kernel, with a session of its own. Raises RuntimeError without kernel."""
        self._id()
        options = {"parent": self, "session": Session(parent=self), **kwargs}
        made: HoldfastKernelClient = self.client_factory(**options)
        self._clients.add(made)
        return made

    # life

    async def start_kernel(self, **kwargs: Any) -> None:
        """Start a kernel; ``env``, ``cwd`` and ``kernel_name`` go with it. With ``kernel_id``, be
        the manager of that one instead, which ``cleanup_resources`` then leaves alone.

        Raises NoSuchKernel for an unknown kernelspec, RuntimeError when it does not start.
        """
        existing = kwargs.get("kernel_id")
        if existing is not None:
            await self._take(str(existing))
            return
        if kwargs.get("extra_arguments"):
            self.log.warning(
                "holdfast: these arguments do not reach a kernel behind a gateway: %s",
                " ".join(kwargs["extra_arguments"]),
            )
        name = str(kwargs.get("kernel_name") or self.kernel_name)
        try:
            self.kernel = await self.link.start(name, env=kwargs.get("env"), cwd=kwargs.get("cwd"))
        except GatewayRefused as refusal:
            if refusal.status in (400, 404):
                raise NoSuchKernel(name) from refusal
            raise RuntimeError(f"the kernel {name} could not be started: {refusal}") from refusal
        assert self.kernel is not None
        self.kernel_id = str(self.kernel["id"])
        self._ours = True
        self.log.info("holdfast: kernel %s (%s) was started", self.kernel_id, name)

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """End the kernel. One that is gone already is no error, and neither is no kernel."""
        if self.has_kernel and not restart:
            await self._delete()
            await self.cleanup_resources()

    async def restart_kernel(self, now: bool = False, newports: bool = False, **kw: Any) -> None:
        """Restart the kernel, once, after what was sent to it before."""
        for client in self._clients:
            client.expect_restart()
        await self._ask(self.link.restart(self._id()), "restarted")

    async def interrupt_kernel(self) -> None:
        """Interrupt the kernel, after what was sent to it before."""
        await self._ask(self.link.interrupt(self._id()), "interrupted")

    async def signal_kernel(self, signum: int) -> None:
        """SIGINT interrupts. Raises NotImplementedError for others: a gateway sends no signals."""
        if signum != _SIGINT:
            raise NotImplementedError(f"signal {signum} cannot be sent through a gateway")
        await self.interrupt_kernel()

    async def is_alive(self) -> bool:
        """Whether the kernel lives: what its stream says, else what the gateway says. One that
        cannot be asked about now is alive."""
        if self.kernel is None:
            return False
        running = [client for client in self._clients if client.channels_running]
        if running:
            return all(client.ended is None for client in running)
        try:
            model = await self.link.model(self._id())
        except GatewayRefused:
            return True
        return model is not None and model.get("execution_state") != "dead"

    _async_is_alive = is_alive

    async def cleanup_resources(self, restart: bool = False) -> None:
        """Leave nothing behind: end a kernel that was started here and not shut down."""
        if restart:
            return
        if self.kernel is not None and self._ours:
            try:
                await self._delete()
            except RuntimeError as error:
                self.log.warning("holdfast: kernel %s may be left over: %s", self.kernel_id, error)
        self.kernel = None
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _id(self) -> str:
        if self.kernel is None or self.kernel_id is None:
            raise RuntimeError("No kernel is running!")  # nbclient looks for these words
        return self.kernel_id

    async def _take(self, kernel_id: str) -> None:
        try:
            self.kernel = await self.link.model(kernel_id)
        except GatewayRefused as refusal:
            raise RuntimeError(f"kernel {kernel_id} cannot be asked for: {refusal}") from refusal
        if self.kernel is None:
            raise RuntimeError(f"the gateway has no kernel {kernel_id}")
        self.kernel_id, self._ours = kernel_id, False

    async def _delete(self) -> None:
        await self._ask(self.link.delete(self._id()), "shut down")
        self.kernel = None

    async def _ask(self, call: Any, done: str) -> None:
        try:
            await call
        except GatewayRefused as refusal:
            raise RuntimeError(f"kernel {self.kernel_id} was not {done}: {refusal}") from refusal
