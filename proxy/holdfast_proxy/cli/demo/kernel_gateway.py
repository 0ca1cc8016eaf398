"""Kernel Gateway under the same supervision, behind a Jupyter Server without our shim.

It is the peer of `holdfast demo --against kernel-gateway`, set up as well as it can be: its rate
limit on output is off. It is one process, for it has no others to hand a kernel to; when it is
killed it is started again at once, as a proxy would be.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import aiohttp

from ..up import descendants, ports
from ..up.child import Child, ChildSpec
from ..up.plan import LAB_TOKEN, TOKEN, child_env
from ..up.ports import LOOPBACK
from ..up.probe import HttpAnswer, Probe
from ..up.state_dir import StateDir
from .site import SERVER, Roster, Site, isolated, server_argv

PACKAGE, TESTED = "jupyter_kernel_gateway", "3.0.1"
_NAME = "kernel-gateway"
_GRACE = 2.0
#: Enables itself by a file beside the interpreter, so it must be named.
_SHIM = "holdfast_client_shim"


def is_installed() -> bool:
    """Whether Kernel Gateway can be run by this interpreter."""
    return importlib.util.find_spec("kernel_gateway") is not None


def installed_version() -> str:
    """For the table's heading; empty when it is not a distribution of its own."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""


class _Listed(Probe):
    """It lists its kernelspecs: Kernel Gateway answers nothing at all without its token."""

    def __init__(self, site: KernelGatewaySite) -> None:
        self._site = site

    def forget(self) -> None:
        """Nothing: the predecessor is dead, so what answers on its port is the new one."""

    async def look(self, pid: int) -> str | None:
        return self._site.members[_NAME] if await self._site.answers(_NAME) else None


class KernelGatewaySite(Site):
    """One Kernel Gateway and a stock Jupyter Server."""

    def __init__(
        self, *, state: StateDir, root: Path, roster: Roster, http: aiohttp.ClientSession
    ) -> None:
        super().__init__(roster, http)
        self.title = f"Kernel Gateway {installed_version()}".rstrip()
        self._state = state
        chosen = ports.choose(0, proxies=1, launchers=0, earlier=None)
        gateway, self._port = chosen.proxies[0], chosen.lab
        self._token, self.server_token = state.secret(TOKEN), state.secret(LAB_TOKEN)
        self.members = {_NAME: f"http://{LOOPBACK}:{gateway}"}
        self.server_url = f"http://{LOOPBACK}:{self._port}"
        self._root, self._gateway_port = root, gateway
        self._children: list[Child] = []
        self._reaping: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KernelGatewaySite {self._children}>"

    async def start(self) -> None:
        env = isolated(child_env(os.environ), self._state.path / "jupyter")
        self._reaping = asyncio.create_task(self._reap(), name="reap kernels")
        await self._bring_up(self._gateway_spec(env))
        await self._bring_up(self._server_spec(env))

    async def stop(self) -> None:
        for child in reversed(self._children):
            await child.stop(grace=_GRACE)
        self._sweep()

    async def kill(self) -> None:
        for child in self._children:
            child.kill()
        await asyncio.gather(*(child.stop(grace=0.0) for child in self._children))
        self._sweep()

    async def answers(self, name: str) -> bool:
        headers = {"Authorization": f"token {self._token}"}
        return await self._ok(f"{self.members[name]}/api/kernelspecs", headers)

    async def _bring_up(self, spec: ChildSpec) -> None:
        child = Child(spec, self.roster.event)
        self._children.append(child)
        child.start()
        await child.wait_ready()

    def _gateway_spec(self, env: Mapping[str, str]) -> ChildSpec:
        argv = (
            sys.executable, "-m", "kernel_gateway", f"--KernelGatewayApp.ip={LOOPBACK}",
            f"--KernelGatewayApp.port={self._gateway_port}", "--KernelGatewayApp.port_retries=0",
            "--ZMQChannelsWebsocketConnection.limit_rate=False",
        )  # fmt: skip
        return self._spec(_NAME, argv, {**env, "KG_AUTH_TOKEN": self._token}, _Listed(self))

    def _server_spec(self, env: Mapping[str, str]) -> ChildSpec:
        argv = server_argv(
            root=self._root, port=self._port, gateway_url=self.members[_NAME], without=[_SHIM]
        )
        secrets = {
            "JUPYTER_GATEWAY_AUTH_TOKEN": self._token,
            "JUPYTER_TOKEN_FILE": str(self._state.secret_file(LAB_TOKEN)),
        }
        probe = HttpAnswer(self.server_url, "/api", self._http)
        return self._spec(SERVER, argv, {**env, **secrets}, probe)

    def _spec(
        self, name: str, argv: tuple[str, ...], env: Mapping[str, str], probe: Probe
    ) -> ChildSpec:
        log = self._state.log_file(name)
        return ChildSpec(name=name, kind=name, argv=argv, env=env, log=log, probe=probe)

    async def _reap(self) -> None:
        reaper = descendants.OrphanReaper()
        while True:
            await asyncio.sleep(0.5)
            reaper.collect({child.pid for child in self._children if child.pid})

    def _sweep(self) -> None:
        if self._reaping is not None:
            self._reaping.cancel()
        descendants.end_descendants(spare=(), timeout=1.0)
