"""A keeper from its config to its end: builds the parts, serves, and stands until told to go.

Importing this opens nothing (no loop, socket, thread or zmq context): launchers fork keepers
from a process that has imported it. SIGTERM, SIGINT and SIGHUP do not end a keeper while its
kernel lives, because ending the keeper ends the notebook's stream; they end one whose kernel
is dead or was never started. Whoever means it calls ``/v1/shutdown``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final
from uuid import uuid4

import structlog
from aiohttp import web

from holdfast_launcher.logs import unfailing
from holdfast_launcher.network.tls import Identity, is_loopback, make_identity
from holdfast_protocol.errors import CloseCode
from holdfast_protocol.frames import ByeReason

from .activity import StateWriter
from .config import KeeperConfig
from .fence import Fence
from .log.journal import Journal, Settling
from .log.quota import NodeQuota
from .ports import KernelHost, KernelListener, KernelStartFailed
from .serve.clients.connection import Connection
from .serve.gate import Gate
from .serve.http import KeeperApi, Parts
from .serve.hub import Hub
from .serve.lifecycle import Lifecycle
from .serve.notices import Notices
from .serve.sessions import Sessions
from .serve.status import Status, iso
from .state_files import prepare_directory, start_time

_log = structlog.get_logger(__name__)

_PR_SET_DUMPABLE: Final = 4
_GOODBYE_SECONDS: Final = 3.0
_CLEANUP_SECONDS: Final = 3.0
_SOCKET_AGE: Final = 3600.0
_HOUSEKEEPING: Final = 60.0
_QUOTA_LOOK: Final = 2.0
_BACKLOG: Final = 256
#: A burst stays in memory this long for its readers, then goes to disk slice by slice.
_SETTLE_DELAY: Final = 0.25
_SETTLE_PAUSE: Final = 0.02

BuildHost = Callable[[KeeperConfig, KernelListener], KernelHost]


def run(
    config: KeeperConfig, ready_fd: int | None = None, *, build_host: BuildHost | None = None
) -> int:
    """Be a keeper until shut down; returns the exit status.

    ``ready_fd`` gets one byte, and is closed, when the port is bound and keeper.json is
    written. ``build_host`` replaces the real kernel side in tests. Raises OSError when the
    state directory or the port cannot be had.
    """
    _harden()
    _configure_logging(config)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Keeper(config, build_host or _real_host).serve(ready_fd))


class _Keeper:
    """Holds the parts together for one run."""

    def __init__(self, config: KeeperConfig, build_host: BuildHost) -> None:
        self._config = config
        self._build_host = build_host
        self._connections: set[Connection] = set()
        self._writer: StateWriter | None = None
        self._status_code = 0

    async def serve(self, ready_fd: int | None) -> int:
        config = self._config
        prepare_directory(config.directory)
        self._stop = asyncio.Event()
        api = self._build()
        identity = None
        if not is_loopback(config.host):
            identity = make_identity(config.directory, name=f"holdfast {config.kernel_id}")
        listener = _bind(config.host, config.port)
        runner = web.AppRunner(
            api.application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_CLEANUP_SECONDS,
        )
        await runner.setup()
        site = web.SockSite(
            runner, listener, ssl_context=None if identity is None else identity.context
        )
        await site.start()
        writer = self._writer = self._state_writer(listener, identity)
        writer.write_now(durable=True, keep_kernel=config.adopt)
        self._handle_signals()
        _say_ready(ready_fd)
        _log.info("keeper.ready", port=listener.getsockname()[1])
        try:
            await self._work(writer)
        finally:
            try:
                writer.write_now(keep_kernel=self._status_code != 0)
            except OSError as error:
                _log.warning("state.not_written", error=str(error))
            await runner.cleanup()
            self._hub.journal.close()
        _log.info("keeper.ended", status=self._status_code)
        return self._status_code

    async def _work(self, writer: StateWriter) -> None:
        """What a keeper does by itself, until it is told to stop."""
        work = [writer.run(), self._housekeep(), self._heed_quota()]
        if self._config.adopt:
            work.append(self._adopt())
        tasks = [asyncio.create_task(part) for part in work]
        try:
            await self._stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _adopt(self) -> None:
        """A keeper that cannot take its kernel over ends, and its launcher then ends the kernel."""
        try:
            await self._lifecycle.adopt()
        except KernelStartFailed as error:
            _log.error("keeper.kernel_not_adopted", why=str(error))
            self._status_code = 1
            self._stop.set()

    def _build(self) -> KeeperApi:
        config = self._config
        loop = asyncio.get_running_loop()
        sessions = Sessions(loop.time)
        self._hub = Hub(
            epoch=token_bytes(16),
            journal=Journal(
                config.directory,
                memory_bytes=config.log_memory_bytes,
                disk_bytes=config.log_disk_bytes,
                burst_bytes=config.log_burst_bytes,
                quota=_quota(config),
                on_pressure=lambda: self._hub.relieve_pressure(config.session_age),
                on_unsettled=lambda: self._settle_later(_SETTLE_DELAY),
            ),
            sessions=sessions,
            gate=Gate(config.held_bytes),
            writer=Notices(new_id=lambda: uuid4().hex, now=lambda: iso(time.time())),
            on_change=self._on_change,
            on_state=self._on_state,
        )
        host = self._build_host(config, self._hub)
        self._hub.bind(host)
        self._fence = Fence(config.directory)
        self._status = Status(config, self._hub, self._fence, time.time)
        self._lifecycle = Lifecycle(hub=self._hub, host=host, fence=self._fence, nonce=config.nonce)
        return KeeperApi(
            Parts(
                config=config,
                hub=self._hub,
                fence=self._fence,
                lifecycle=self._lifecycle,
                status=self._status,
                connections=self._connections,
                on_shutdown=self._say_goodbye,
            )
        )

    def _state_writer(self, listener: socket.socket, identity: Identity | None) -> StateWriter:
        config = self._config
        host, port = listener.getsockname()[:2]
        return StateWriter(
            config.directory,
            identity={
                "kernel_id": config.kernel_id,
                "nonce": config.nonce,
                "pid": os.getpid(),
                "start_time": start_time(os.getpid()),
                "endpoint": {"host": host, "port": port},
                "fingerprint": None if identity is None else identity.fingerprint,
                "credential": config.credential,
                "epoch": self._hub.epoch.hex(),
                "spec": config.spec,
                "user": config.user,
            },
            activity=self._status.activity,
            kernel_pid=lambda: self._hub.host.info().pid,
        )

    def _on_change(self) -> None:
        """After every message and every change of state."""
        if self._writer is not None:
            self._status.touch()
            self._writer.changed()
            self._lifecycle.moved()

    def _on_state(self) -> None:
        """After a change of the kernel's state, its process included."""
        if self._writer is not None:
            self._writer.write_new_kernel()
        self._on_change()

    async def _say_goodbye(self) -> None:
        """The kernel has ended: connections get what is left and ``gone``, then we stop."""
        for connection in self._connections:
            connection.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                for connection in list(self._connections):
                    await connection.wait_ended()
        for connection in list(self._connections):
            connection.dismiss(ByeReason.GONE, CloseCode.GONE, "the kernel was shut down")
        # the server's clean-up lets the handler that called this answer first
        self._stop.set()

    def _settle_later(self, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self._settle)

    def _settle(self) -> None:
        if self._stop.is_set():
            return
        settling = self._hub.journal.settle()
        if settling is not Settling.DONE:
            self._settle_later(_SETTLE_PAUSE if settling is Settling.MORE else _SETTLE_DELAY)

    async def _housekeep(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            self._hub.release_idle_sockets(_SOCKET_AGE)
            self._hub.remember_absent(self._config.session_age)

    async def _heed_quota(self) -> None:
        """Also a log that nothing is written to gives way to others that grow."""
        while True:
            await asyncio.sleep(_QUOTA_LOOK)
            if self._hub.journal.disk_size:
                self._hub.journal.heed_quota()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if self._lifecycle.kernel_runs:
            _log.warning("keeper.signal_ignored", signal=number, why="its kernel lives")
        else:
            self._stop.set()


def _quota(config: KeeperConfig) -> NodeQuota | None:
    if config.log_quota_dir is None:
        return None
    return NodeQuota(Path(config.log_quota_dir), name=config.kernel_id)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _say_ready(ready_fd: int | None) -> None:
    if ready_fd is not None:
        with contextlib.suppress(BrokenPipeError):  # the launcher died meanwhile; another adopts us
            os.write(ready_fd, b"1")
        os.close(ready_fd)


def _real_host(config: KeeperConfig, listener: KernelListener) -> KernelHost:
    # imported here: tests of the serving side need no zmq, and the zygote imports it by itself
    from .kernel import build_kernel_host

    return build_kernel_host(config, listener)


def _harden() -> None:
    """No core dump and no ptrace by the user's other processes, kernels among them."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _configure_logging(config: KeeperConfig) -> None:
    def add_kernel(_: Any, __: str, event: Any) -> Any:
        event["kernel"] = config.kernel_id
        return event

    structlog.configure(
        processors=[
            add_kernel,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=unfailing(sys.stderr)),
        cache_logger_on_first_use=False,
    )
