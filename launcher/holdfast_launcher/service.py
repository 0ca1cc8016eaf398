"""One launcher process put together: agent, listener, heartbeat, and their order of life.

It knows every part and decides nothing. Serving begins when the state directory has been read,
which takes milliseconds; imports for kernelspecs and zygote go on in the background. SIGTERM ends
the heartbeats and the listener and leaves every keeper and kernel alone (DESIGN promise 5).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from holdfast_launcher.agent.agent import Agent
from holdfast_launcher.agent.last_words import LastWords
from holdfast_launcher.config import KEEPER_ENTRY, LauncherConfig
from holdfast_launcher.engines.local import LocalEngine
from holdfast_launcher.environment import base_environment
from holdfast_launcher.errors import ConfigError
from holdfast_launcher.kernelspecs import KernelspecCatalog
from holdfast_launcher.network.heartbeat import Heartbeat, Presence
from holdfast_launcher.network.http import make_app
from holdfast_launcher.network.tls import Identity, obtain_identity
from holdfast_launcher.processes import become_subreaper, become_undumpable
from holdfast_launcher.reaper import Reaper
from holdfast_launcher.state.statefiles import make_private_directory, obtain_secret, write_json

#: Starts that are under way at SIGTERM get this long, in seconds.
_GRACE = 3.0
#: What importing the keeper needs besides the base: where Python finds modules.
_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")

#: What the keeper's entry imports when it runs rather than when it is imported.
_PRELOAD = ("holdfast_launcher.keeper.kernel", "uvloop")

_log = structlog.get_logger(__name__)


async def serve(config: LauncherConfig) -> None:
    """Run a launcher until SIGTERM or SIGINT. Raises ConfigError, OSError when it cannot begin."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    make_private_directory(config.state)
    with _only_one(config.state):
        become_subreaper()
        become_undumpable()
        reaper = Reaper()
        reaper.install(loop)
        await _run(config, reaper, stop)


async def _run(config: LauncherConfig, reaper: Reaper, stop: asyncio.Event) -> None:
    identity = None if config.plain else _identity(config)
    access_token = obtain_secret(config.state / "access_token")
    listener = _bind(config)
    host, port = config.advertise_host or config.host, listener.getsockname()[1]
    scheme = "http" if identity is None else "https"
    presence = Presence(
        url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}",
        fingerprint=None if identity is None else identity.fingerprint,
        access_token=access_token,
        engine=LocalEngine.name,
    )
    news = asyncio.Event()
    catalog = KernelspecCatalog(config.kernelspec_dirs, native_kernel=config.native_kernel)
    agent = _agent(config, catalog, reaper, host, news)

    async def report() -> tuple[dict[str, Any], str]:
        digest = (await catalog.read()).digest
        return agent.beat(), digest

    await agent.start()
    runner = web.AppRunner(
        make_app(
            agent=agent,
            catalog=catalog,
            access_token=access_token,
            words=LastWords(config.kernels),
        ),
        access_log=None,
        shutdown_timeout=_GRACE,
    )
    await runner.setup()
    context = None if identity is None else identity.context
    await web.SockSite(runner, listener, ssl_context=context).start()
    _announce(config, presence, agent)
    heartbeat = Heartbeat(config=config, presence=presence, report=report, news=news)
    await _until(stop, heartbeat)
    await runner.cleanup()
    await agent.close()
    _log.info("stopped; keepers and kernels stay", launcher_id=config.launcher_id)


def _agent(
    config: LauncherConfig,
    catalog: KernelspecCatalog,
    reaper: Reaper,
    host: str,
    news: asyncio.Event,
) -> Agent:
    base = base_environment(os.environ, config.env_passthrough)
    python = {name: os.environ[name] for name in _PYTHON if name in os.environ}
    engine = LocalEngine(
        entry=config.keeper_entry,
        environment={**base, **python},
        start_timeout=config.keeper_start_timeout,
        reaper=reaper,
        preload=_PRELOAD if config.keeper_entry == KEEPER_ENTRY else (),
    )
    return Agent(
        config=config,
        engine=engine,
        catalog=catalog,
        base_environment=base,
        advertise_host=host,
        on_change=news.set,
    )


def _announce(config: LauncherConfig, presence: Presence, agent: Agent) -> None:
    if config.ready_file is not None:
        ready = {"id": config.launcher_id, "pid": os.getpid(), "url": presence.url}
        write_json(Path(config.ready_file), ready)
    _log.info("serving", launcher_id=config.launcher_id, url=presence.url, agent=repr(agent))
    if not config.single_user:
        _log.warning("no kernel will be started: the local engine needs single_user = true")
    if not config.proxies:
        _log.warning("no proxies are configured: nobody will find this launcher")


async def _until(stop: asyncio.Event, heartbeat: Heartbeat) -> None:
    """Beat until told to stop; raises what else ended the heartbeats."""
    beating = asyncio.create_task(heartbeat.run())
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({beating, waiting}, return_when=asyncio.FIRST_COMPLETED)
    beating.cancel()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """Two launchers in one state directory would launch twice. The lock dies with the process."""
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another launcher runs in {state}") from error
        yield
    finally:
        os.close(fd)


def _bind(config: LauncherConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host}:{config.port}: {error}") from error


def _identity(config: LauncherConfig) -> Identity:
    return obtain_identity(config.state / "identity.pem", name=config.launcher_id)
