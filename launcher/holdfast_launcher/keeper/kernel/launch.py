"""Starts a kernel process by its kernelspec, or finds the one that an earlier keeper started.

jupyter_client's manager and provisioner factory do the start, so that every
``jupyter_client.kernel_provisioners`` plug-in works; each incarnation has a manager, a key and
socket paths of its own, so nothing can reach a later kernel by an earlier one's address. What a
next keeper needs to adopt the process is written to ``kernel/incarnation.json`` (0600).

It opens no sockets. Rejected: the manager's ``restart_kernel`` and ``shutdown_kernel``: they
wait in steps of 100 ms and talk on a socket whose answers nobody reads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import zmq
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from ..config import KeeperConfig
from ..ports import KernelStartFailed
from .connection import Connection
from .output import OutputFile
from .process import AdoptedProcess, KernelProcess, ProvisionedProcess, start_time_of

#: sockaddr_un.sun_path holds 108 bytes with the final NUL (unix(7)).
_SUN_PATH: Final = 107
_RECORD: Final = "incarnation.json"
_ABANDON_TIMEOUT: Final = 1.0

_log = structlog.get_logger(__name__)


class IncarnationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is on disk about the running kernel process."""

    incarnation: int
    pid: int
    pgid: int
    start_time: int
    connection_file: str
    socket_dir: str | None
    interrupt_mode: str


@dataclass(frozen=True, slots=True)
class Launched:
    """A kernel process and how to reach it. ``files``: to be removed with it."""

    incarnation: int
    process: KernelProcess
    connection: Connection
    interrupt_mode: str
    adopted: bool
    files: tuple[Path, ...] = field(default=())
    socket_dir: Path | None = None

    async def cleanup(self, *, restart: bool) -> None:
        """After the process ended: release the provisioner and remove our files."""
        try:
            await self.process.cleanup(restart=restart)
        except Exception as error:  # plug-ins raise what they like; the kernel has ended anyway
            _log.warning("kernel_cleanup_failed", error=repr(error))
        self._remove_files()

    async def abort(self) -> None:
        """End a process that nobody will use."""
        await self.process.kill()
        await self.process.wait()
        await self.cleanup(restart=False)

    def _remove_files(self) -> None:
        for path in self.files:
            path.unlink(missing_ok=True)
        if self.connection.transport == "ipc":
            for port in self.connection.ports.values():
                Path(f"{self.connection.ip}-{port}").unlink(missing_ok=True)
        if self.socket_dir is not None:
            shutil.rmtree(self.socket_dir, ignore_errors=True)


class _Manager(AsyncKernelManager):
    """A manager that opens no control socket: the keeper's wire asks for the shutdown."""

    def _connect_control_socket(self) -> None:
        return


class KernelLaunch:
    """Starts and adopts the incarnations of one kernel."""

    def __init__(self, config: KeeperConfig) -> None:
        self._config = config
        self._directory = config.directory / "kernel"
        self.output = OutputFile(self._directory / "output.log")

    def __repr__(self) -> str:
        return f"KernelLaunch({self._config.spec!r})"

    async def start(self, incarnation: int) -> Launched:
        """Start a process. Raises KernelStartFailed with what the kernelspec's program said."""
        try:
            return await self._start(incarnation)
        except OSError as error:  # a full disk, mostly
            raise KernelStartFailed(
                f"kernel {self._config.spec!r} could not be started: {error}", self.output.tail()
            ) from error

    async def _start(self, incarnation: int) -> Launched:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        spec = self._find_spec()
        transport = _transport(spec, self._config.transport)
        connection_file = self._directory / f"connection-{incarnation}.json"
        connection_file.unlink(missing_ok=True)
        prefix, socket_dir = self._socket_prefix(incarnation, transport)
        manager = self._manager(spec, transport, connection_file, prefix)
        output = self.output.open_for_kernel()
        try:
            await manager.start_kernel(
                env=_environment(self._config.env),
                cwd=working_directory(self._config.path, self._config.env),
                stdout=output,
                stderr=output,
                independent=True,
            )
        except Exception as error:  # plug-ins raise what they like: outer edge of foreign code
            _forget(connection_file, socket_dir)
            raise KernelStartFailed(
                f"kernel {self._config.spec!r} could not be started: {error}", self.output.tail()
            ) from error
        except asyncio.CancelledError:
            await _abandon(manager)
            _forget(connection_file, socket_dir)
            raise
        finally:
            os.close(output)
        launched = self._launched(incarnation, manager, spec, connection_file, socket_dir)
        try:
            _refuse_plaintext(launched, spec)
            self._write_record(launched, connection_file)
        except BaseException:
            await asyncio.shield(launched.abort())
            raise
        return launched

    def adopt(self) -> Launched:
        """The living process of the last keeper. Raises KernelStartFailed when it is gone."""
        try:
            data = (self._directory / _RECORD).read_bytes()
            record = msgspec.json.decode(data, type=IncarnationRecord)
            connection_file = Path(record.connection_file)
            connection = Connection.from_file(connection_file)
        except (OSError, ValueError, KeyError) as error:
            raise KernelStartFailed(f"there is no kernel to adopt: {error}") from error
        process = AdoptedProcess(record.pid, record.pgid, record.start_time)
        if not process.alive:
            raise KernelStartFailed("the kernel to adopt is gone", self.output.tail())
        return Launched(
            incarnation=record.incarnation,
            process=process,
            connection=connection,
            interrupt_mode=record.interrupt_mode,
            adopted=True,
            files=(connection_file, self._directory / _RECORD),
            socket_dir=None if record.socket_dir is None else Path(record.socket_dir),
        )

    def _find_spec(self) -> KernelSpec:
        manager = KernelSpecManager()
        if self._config.kernelspec_dirs:
            manager.kernel_dirs = list(self._config.kernelspec_dirs)
        try:
            return manager.get_kernel_spec(self._config.spec)
        except NoSuchKernel as error:
            raise KernelStartFailed(f"there is no kernelspec {self._config.spec!r}") from error

    def _manager(
        self, spec: KernelSpec, transport: str, connection_file: Path, prefix: Path | None
    ) -> _Manager:
        manager = _Manager(
            kernel_id=self._config.kernel_id,
            kernel_name=self._config.spec,
            connection_file=str(connection_file),
            transport=transport,
            log=logging.getLogger("holdfast.kernel"),
        )
        manager._kernel_spec = spec  # noqa: SLF001 - the public way looks it up a second time
        if prefix is not None:
            manager.ip = str(prefix)
        elif "transport_encryption" in manager.trait_names() and zmq.has("curve"):
            manager.transport_encryption = "auto"  # where the kernelspec says that it can
        return manager

    def _launched(
        self,
        incarnation: int,
        manager: _Manager,
        spec: KernelSpec,
        connection_file: Path,
        socket_dir: Path | None,
    ) -> Launched:
        provisioner = manager.provisioner
        if provisioner is None:
            raise KernelStartFailed("the provisioner vanished while it started the kernel")
        # The manager would remove the file when it is collected; it is the adopter's.
        manager._connection_file_written = False  # noqa: SLF001 - there is no public switch
        return Launched(
            incarnation=incarnation,
            process=ProvisionedProcess(provisioner),
            connection=Connection.from_info(manager.get_connection_info()),
            interrupt_mode=spec.interrupt_mode,
            adopted=False,
            files=(connection_file, self._directory / _RECORD),
            socket_dir=socket_dir,
        )

    def _socket_prefix(self, incarnation: int, transport: str) -> tuple[Path | None, Path | None]:
        """Where the ipc sockets go: the state directory, or a short one when that is too long."""
        if transport != "ipc":
            return None, None
        prefix = self._directory / f"s{incarnation}"
        if len(os.fsencode(f"{prefix}-5")) <= _SUN_PATH:
            return prefix, None
        short = Path(tempfile.mkdtemp(prefix="holdfast-"))  # 0700 by mkdtemp(3)
        return short / f"s{incarnation}", short

    def _write_record(self, launched: Launched, connection_file: Path) -> None:
        pid = launched.process.pid
        start_time = None if pid is None else start_time_of(pid)
        if pid is None or start_time is None:
            return  # not on this host, or gone already: nothing that could be adopted by pid
        record = IncarnationRecord(
            incarnation=launched.incarnation,
            pid=pid,
            pgid=os.getpgid(pid),
            start_time=start_time,
            connection_file=str(connection_file),
            socket_dir=None if launched.socket_dir is None else str(launched.socket_dir),
            interrupt_mode=launched.interrupt_mode,
        )
        path = self._directory / _RECORD
        fresh = path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(record))
        fresh.replace(path)


def working_directory(path: str | None, env: dict[str, str]) -> str:
    """Where the kernel runs: ``KERNEL_WORKING_DIR``, else the notebook's directory.

    ``path`` names a notebook or a directory, absolute or below the user's home. What does not
    exist here (a notebook server on another machine) gives way to the nearest parent that does.
    """
    home = Path(env.get("HOME") or "/")
    wanted = env.get("KERNEL_WORKING_DIR") or path
    if not wanted:
        return str(home if home.is_dir() else Path("/"))
    place = Path(os.path.normpath(home / wanted))
    if path == wanted and place.is_file():
        place = place.parent
    while not place.is_dir():
        place = place.parent
    if place == Path("/") and home.is_dir():
        return str(home)
    return str(place)


def _environment(env: dict[str, str]) -> dict[str, str]:
    """The kernel's whole environment. ``JPY_PARENT_PID`` would end it with its keeper."""
    whole = {"PATH": os.defpath, **env}
    whole.pop("JPY_PARENT_PID", None)
    return whole


def _holdfast_metadata(spec: KernelSpec) -> dict[str, Any]:
    metadata = (spec.metadata or {}).get("holdfast")
    return metadata if isinstance(metadata, dict) else {}


def _transport(spec: KernelSpec, default: str) -> str:
    return str(_holdfast_metadata(spec).get("transport") or default)


def _refuse_plaintext(launched: Launched, spec: KernelSpec) -> None:
    """Code and output never cross a network in the clear, unless the kernelspec says so."""
    if launched.connection.is_private or _holdfast_metadata(spec).get("allow_plaintext") is True:
        return
    raise KernelStartFailed(
        f"kernel {spec.display_name!r} runs on another host and has no CURVE encryption; "
        'use a provisioner that sets it, or allow it by "holdfast": {"allow_plaintext": true} '
        "in the kernelspec's metadata"
    )


async def _abandon(manager: _Manager) -> None:
    """End what a start that was cancelled had made so far, if its plug-in can be spoken to."""
    provisioner = manager.provisioner
    try:
        async with asyncio.timeout(_ABANDON_TIMEOUT):
            if provisioner is not None and provisioner.has_process:
                await provisioner.kill()
                await provisioner.wait()
    except Exception as error:  # plug-ins raise what they like; the launcher ends what is left
        _log.warning("kernel_not_abandoned", error=repr(error))


def _forget(connection_file: Path, socket_dir: Path | None) -> None:
    connection_file.unlink(missing_ok=True)
    if socket_dir is not None:
        shutil.rmtree(socket_dir, ignore_errors=True)
