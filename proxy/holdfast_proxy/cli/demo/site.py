"""The processes that a demo needs, as it sees them: members to kill, a notebook server to use.

HoldfastSite is `holdfast up`'s own tree, with a Jupyter Server of its own in place of JupyterLab:
the person's Jupyter configuration must not decide what a demo shows. Whoever makes a site has
become a subreaper before, and calls ``stop`` or ``kill`` in any case.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil

from ..up.child import ChildEvent, Phase
from ..up.etcd_binary import EtcdBinary
from ..up.identity import ProcessIdentity
from ..up.plan import LAB_TOKEN, Plan, UpOptions
from ..up.ports import LOOPBACK, Ports
from ..up.session import choose_ports, make_secrets
from ..up.specs import RealSpecs
from ..up.state_dir import StateDir
from ..up.tree import Tree

#: Name of the notebook server's child in either site, as `holdfast up` calls it.
SERVER = "lab"
_UNSEEN = ("jupyterlab", "jupyter_lsp", "notebook_shim", "jupyter_server_terminals")
_ANSWER = aiohttp.ClientTimeout(total=0.5)


class Roster:
    """What children are doing now, from their events."""

    def __init__(self, listener: Callable[[ChildEvent], None]) -> None:
        self._listener = listener
        self._events: dict[str, ChildEvent] = {}

    def __repr__(self) -> str:
        return f"<Roster {[(e.name, e.phase.value, e.pid) for e in self._events.values()]}>"

    def event(self, event: ChildEvent) -> None:
        self._events[event.name] = event
        self._listener(event)

    def phase(self, name: str) -> Phase:
        event = self._events.get(name)
        return event.phase if event is not None else Phase.WAITING

    def pid(self, name: str) -> int | None:
        """The pid of the child when it runs."""
        event = self._events.get(name)
        return event.pid if event is not None else None


class Site(ABC):
    """``members``: name → address of what carries the notebook and is killed."""

    title: str
    members: Mapping[str, str]
    server_url: str
    server_token: str

    def __init__(self, roster: Roster, http: aiohttp.ClientSession) -> None:
        self.roster, self._http = roster, http

    @abstractmethod
    async def start(self) -> None:
        """Everything is ready when it returns. Raises StartFailed."""

    @abstractmethod
    async def stop(self) -> None:
        """End everything in order; no process is left."""

    @abstractmethod
    async def kill(self) -> None:
        """End everything at once; no process is left."""

    @abstractmethod
    async def answers(self, name: str) -> bool:
        """Whether the member could take the notebook now; at most half a second."""

    def log_file(self, name: str) -> Path:
        return self._state.log_file(name)

    _state: StateDir

    async def carriers(self) -> frozenset[str]:
        """The members to which the notebook server has connections."""
        pid = self.roster.pid(SERVER)
        return frozenset() if pid is None else await asyncio.to_thread(connected, pid, self.members)

    async def ready(self) -> frozenset[str]:
        """The members that could take the notebook now."""
        names = [name for name in self.members if self.roster.phase(name) is Phase.READY]
        said = await asyncio.gather(*(self.answers(name) for name in names))
        return frozenset(name for name, yes in zip(names, said, strict=True) if yes)

    def send(self, name: str, number: signal.Signals) -> bool:
        """Signal a member; False when it is not running."""
        pid = self.roster.pid(name)
        identity = ProcessIdentity.of(pid) if pid is not None else None
        return identity is not None and identity.send(number)

    async def _ok(self, url: str, headers: Mapping[str, str] | None = None) -> bool:
        try:
            async with self._http.get(url, headers=headers, timeout=_ANSWER) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def connected(pid: int, members: Mapping[str, str]) -> frozenset[str]:
    """Those of ``members`` that process ``pid`` has established TCP connections to."""
    names = {urlsplit(url).port: name for name, url in members.items()}
    try:
        links = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return frozenset()
    return frozenset(
        names[link.raddr.port]
        for link in links
        if link.status == psutil.CONN_ESTABLISHED and link.raddr.port in names
    )


def server_argv(
    *, root: Path, port: int, gateway_url: str, without: Sequence[str] = ()
) -> tuple[str, ...]:
    """A stock Jupyter Server with ``--gateway-url``, as anybody would start it.

    Not loaded: JupyterLab's own extensions, which nobody looks at here and which take seconds,
    and those named in ``without``. The command line overrules the files that enable them.
    """
    off = dict.fromkeys((*_UNSEEN, *without), False)
    argv = (
        sys.executable, "-m", "jupyter_server", "--no-browser", f"--gateway-url={gateway_url}",
        f"--ServerApp.ip={LOOPBACK}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        "--ServerApp.base_url=/", f"--ServerApp.root_dir={root}",
        f"--ServerApp.jpserver_extensions={off}",
    )  # fmt: skip
    return (*argv, "--allow-root") if os.geteuid() == 0 else argv


def isolated(env: Mapping[str, str], home: Path) -> dict[str, str]:
    """``env`` with Jupyter's own folders below ``home``, and nothing else that steers Jupyter."""
    kept = {key: value for key, value in env.items() if not key.startswith(("JUPYTER_", "KG_"))}
    folders = {f"JUPYTER_{kind.upper()}_DIR": str(home / kind) for kind in _FOLDERS}
    return {**kept, **folders}


_FOLDERS = ("config", "data", "runtime")


class _DemoPlan(Plan):
    """`holdfast up`'s plan with a Jupyter Server for JupyterLab."""

    def lab_argv(self, *, root: bool) -> tuple[str, ...]:
        del root  # server_argv looks itself
        return server_argv(
            root=self.options.root_dir, port=self.ports.lab, gateway_url=self.proxy_urls[0]
        )


class HoldfastSite(Site):
    """etcd, proxies, a launcher and a Jupyter Server with the shim."""

    title = "Holdfast"

    def __init__(
        self,
        *,
        proxies: int,
        state: StateDir,
        root: Path,
        etcd: EtcdBinary,
        roster: Roster,
        http: aiohttp.ClientSession,
    ) -> None:
        super().__init__(roster, http)
        self._state = state
        options = UpOptions(proxies=proxies, state_dir=state.path, root_dir=root)
        ports: Ports = choose_ports(options, state)
        self._token = make_secrets(state, options)
        plan = _DemoPlan(options, ports, state)
        env = isolated(os.environ, state.path / "jupyter")
        specs = RealSpecs(plan, etcd=etcd.path, env=env, token=self._token, http=http)
        self._tree = Tree(plan, specs=specs, env=env, http=http, listener=roster.event)
        self.members = dict(zip(plan.proxy_names, plan.proxy_urls, strict=True))
        self.server_url, self.server_token = plan.lab_url, state.secret(LAB_TOKEN)

    def __repr__(self) -> str:
        return f"<HoldfastSite {self._tree!r}>"

    async def start(self) -> None:
        await self._tree.start()

    async def stop(self) -> None:
        await self._tree.stop()

    async def kill(self) -> None:
        await self._tree.kill()

    async def answers(self, name: str) -> bool:
        return await self._ok(f"{self.members[name]}/readyz")
