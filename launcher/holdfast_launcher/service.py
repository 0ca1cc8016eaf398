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
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from holdfast_launcher.agent.agent import Agent
from holdfast_launcher.agent.last_words import LastWords
from holdfast_launcher.config import LauncherConfig
from holdfast_launcher.descriptors import raise_limit
from holdfast_launcher.engines.registry import EngineSite, build_engine
from holdfast_launcher.environment import base_environment
from holdfast_launcher.errors import ConfigError
from holdfast_launcher.kernelspecs import KernelspecCatalog
from holdfast_launcher.metrics.figures import LauncherMetrics
from holdfast_launcher.metrics.loop_lag import watch_loop
from holdfast_launcher.network.heartbeat import Heartbeat, Presence
from holdfast_launcher.network.http import Scraping, make_app, software_version
from holdfast_launcher.network.tls import Identity, obtain_identity
from holdfast_launcher.processes import become_subreaper, become_undumpable
from holdfast_launcher.reaper import Reaper
from holdfast_launcher.state.statefiles import (
    make_private_directory,
    obtain_secret,
    read_json,
    write_json,
)

#: Starts that are under way at SIGTERM get this long, in seconds.
_GRACE = 3.0
#: What importing the keeper needs besides the base: where Python finds modules.
_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")

_log = structlog.get_logger(__name__)


async def serve(config: LauncherConfig) -> None:
    """Run a launcher until SIGTERM or SIGINT. Raises ConfigError, OSError when it cannot begin."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    make_private_directory(config.state)
    structlog.contextvars.bind_contextvars(launcher=config.launcher_id)
    with _only_one(config.state):
        become_subreaper()
        become_undumpable()
        # before the first keeper is forked, which has what its launcher has
        _log.info("file descriptors", limit=raise_limit())
        reaper = Reaper()
        reaper.install(loop)
        await _run(config, reaper, stop)


async def _run(config: LauncherConfig, reaper: Reaper, stop: asyncio.Event) -> None:
    identity = None if config.plain else _identity(config)
    access_token = obtain_secret(config.state / "access_token")
    listener = _bind(config)
    presence = _presence(config, identity, access_token, port=listener.getsockname()[1])
    news = asyncio.Event()
    catalog = KernelspecCatalog(config.kernelspec_dirs, native_kernel=config.native_kernel)
    metrics = LauncherMetrics(version=software_version())
    agent = _agent(config, catalog, reaper, news, metrics)
    metrics.keepers = agent.figures

    async def report() -> tuple[dict[str, Any], str]:
        digest = (await catalog.read()).digest
        return agent.beat(), digest

    agent.queue.answer_at(presence.url, presence.fingerprint)
    await agent.start()
    runner = web.AppRunner(
        make_app(
            agent=agent,
            catalog=catalog,
            access_token=access_token,
            words=LastWords(config.kernels),
            metrics=metrics,
            scraping=Scraping(token=config.metrics_token, public=config.metrics_public),
        ),
        access_log=None,
        shutdown_timeout=_GRACE,
    )
    await runner.setup()
    await web.SockSite(runner, listener, ssl_context=_context(identity)).start()
    _announce(config, presence, agent)
    heartbeat = Heartbeat(
        config=config, presence=presence, report=report, news=news, rounds=metrics.heartbeats
    )
    lag = asyncio.create_task(watch_loop(metrics.loop_lag.observe))
    await _until(stop, heartbeat)
    lag.cancel()
    await runner.cleanup()
    await agent.close()
    _log.info("stopped; keepers and kernels stay", launcher_id=config.launcher_id)


def _context(identity: Identity | None) -> ssl.SSLContext | None:
    return None if identity is None else identity.context


def _presence(
    config: LauncherConfig, identity: Identity | None, access_token: str, *, port: int
) -> Presence:
    host = config.advertise_host or config.host
    scheme = "http" if identity is None else "https"
    return Presence(
        url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}",
        fingerprint=None if identity is None else identity.fingerprint,
        access_token=access_token,
        engine=config.engine,
    )


def _agent(
    config: LauncherConfig,
    catalog: KernelspecCatalog,
    reaper: Reaper,
    news: asyncio.Event,
    metrics: LauncherMetrics,
) -> Agent:
    host = config.advertise_host or config.host
    base = base_environment(os.environ, config.env_passthrough)
    python = {name: os.environ[name] for name in _PYTHON if name in os.environ}
    engine = build_engine(
        EngineSite(
            config=config,
            settings=config.engines.get(config.engine, {}),
            environment={**base, **python},
            reaper=reaper,
        )
    )
    return Agent(
        config=config,
        engine=engine,
        catalog=catalog,
        base_environment=base,
        advertise_host=host,
        on_change=news.set,
        metrics=metrics,
    )


def _announce(config: LauncherConfig, presence: Presence, agent: Agent) -> None:
    if config.ready_file is not None:
        ready = {"id": config.launcher_id, "pid": os.getpid(), "url": presence.url}
        write_json(Path(config.ready_file), ready)
    _log.info("serving", launcher_id=config.launcher_id, url=presence.url, agent=repr(agent))
    if not config.single_user and config.engine == "local":
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
    """The listener. Where keepers dial back, a port that was chosen freely is kept over restarts:
    jobs that wait in a queue were told it, and keepers that run report to it."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    kept = config.state / "port.json"
    lasting = config.port == 0 and config.engine != "local"
    last = (read_json(kept) or {}).get("port") if lasting else None
    for port in [last, config.port] if isinstance(last, int) else [config.port]:
        try:
            listener = socket.create_server((config.host, port), family=family, backlog=128)
            break
        except OSError as error:
            if port == config.port:
                raise ConfigError(f"cannot listen on {config.host}:{port}: {error}") from error
            _log.error("the last port is taken; starts that wait cannot dial back", port=port)
    if lasting:
        write_json(kept, {"port": listener.getsockname()[1]}, durable=True)
    return listener


def _identity(config: LauncherConfig) -> Identity:
    return obtain_identity(config.state / "identity.pem", name=config.launcher_id)
