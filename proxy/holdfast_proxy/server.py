"""One proxy as a process: sockets, the cluster behind the edge, signals, exit.

``python -m holdfast_proxy --config FILE``. Exit status 0 after SIGTERM or SIGINT, 1 when it could
not start, 2 for a configuration that cannot be used. Must not know routes or kernels.

The order at start is listen, then sync: a supervisor learns the port at once, and ``/readyz`` says
503 until the cluster is in sync. The order at the end is ``edge.drain``'s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Final

import structlog
import uvloop
from aiohttp import web

from .cluster import Cluster
from .config import ConfigError, ProxyConfig, load_config
from .edge.app import build_app
from .edge.context import EDGE
from .edge.drain import drain
from .errors import ProxyError
from .logs import configure_logging

_BACKLOG: Final = 512
#: What a request may still take once the drain is over, in seconds.
_SHUTDOWN_SECONDS: Final = 0.05
_CLOSE_SECONDS: Final = 0.2
_log: Final = structlog.get_logger("holdfast.server")


def main(argv: list[str] | None = None) -> int:
    """Run one proxy until it is told to stop; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m holdfast_proxy", description="Run one proxy.")
    parser.add_argument("--config", required=True, metavar="FILE", help="TOML configuration")
    arguments = parser.parse_args(argv)
    try:
        config = load_config(arguments.config)
        tls = tls_context(config)
        listening = bind(config)
        configure_logging(config)
        return uvloop.run(serve(config.bound(listening.getsockname()[1]), listening, tls))
    except ConfigError as error:
        sys.stderr.write(f"holdfast proxy: {error}\n")
        return 2


def bind(config: ProxyConfig) -> socket.socket:
    """A bound socket, not listening yet. Raises ConfigError when the address cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
    except OSError as error:
        raise ConfigError(f"host {config.host!r}: {error}") from error
    try:
        # A proxy that was killed must get its port back while old connections linger.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen on {config.host}:{config.port}: {error}") from error
    listening.setblocking(False)
    return listening


def tls_context(config: ProxyConfig) -> ssl.SSLContext | None:
    """TLS to clients, or None. Raises ConfigError when the files cannot be used."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"tls_cert and tls_key cannot be used: {error}") from error
    return context


async def serve(
    config: ProxyConfig,
    listening: socket.socket,
    tls: ssl.SSLContext | None,
    cluster: Cluster | None = None,
) -> int:
    """Serve on a bound socket until SIGTERM or SIGINT; the exit status.

    ``cluster`` None: the real one, of ``ownership.build_cluster(config)``.
    """
    if cluster is None:
        from .ownership import build_cluster  # not before the arguments are known to be good

        cluster = build_cluster(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = build_app(cluster, config)
    app[EDGE].stop = stop.set
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    site = web.SockSite(runner, listening, ssl_context=tls, backlog=_BACKLOG)
    try:
        await site.start()
        write_ready_file(config)
        _log.info("listening", proxy_id=config.id, url=config.url)
        if not await _start(cluster, stop):
            return 1
        await stop.wait()
        await site.stop()  # closes the listening socket: who comes back goes elsewhere
        await drain(app[EDGE])
        return 0
    finally:
        await _close(cluster)
        await runner.cleanup()


async def _start(cluster: Cluster, stop: asyncio.Event) -> bool:
    """Start the cluster unless a signal comes first; False when it refuses."""
    starting = asyncio.create_task(cluster.start())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return True
    try:
        starting.result()
    except ProxyError as error:
        _log.error("cannot start", error=error.message)
        return False
    return True


async def _close(cluster: Cluster) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await cluster.close()
    except TimeoutError:
        _log.warning("background tasks did not end in time")


def write_ready_file(config: ProxyConfig) -> None:
    """Tell a supervisor where we listen: ``{"id", "pid", "url"}``, all or nothing, 0600."""
    if config.ready_file is None:
        return
    path = Path(config.ready_file)
    content = json.dumps({"id": config.id, "pid": os.getpid(), "url": config.url})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(content)
    temporary.replace(path)
