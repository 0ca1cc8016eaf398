"""The local engine: a keeper is a process of this machine, forked from a zygote.

It knows pids, pidfds and the kernels' state directories; it must not know fences, HTTP or owners.
A keeper's end is seen at once through its pidfd, whether it is our child (a subreaper's, then
with its exit status) or was adopted after a restart of the launcher (then without).

Ready and failed are told apart by a pipe whose write end only the new keeper holds: a byte means
that keeper.json is in place, end of file that the keeper is gone. So the answer stays right when
the zygote dies in the middle of a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from holdfast_launcher.engines.contract import Engine, Keeper, LaunchFailed
from holdfast_launcher.engines.nursery import Nursery
from holdfast_launcher.engines.zygote import LOG_FILE
from holdfast_launcher.engines.zygote_link import ZygoteBroken, ZygoteGone
from holdfast_launcher.environment import MARK
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.processes import ProcessId, marked, wait_ended
from holdfast_launcher.reaper import Reaper, describe_status
from holdfast_launcher.state.keeper_files import read_keeper_file, read_launch_file
from holdfast_launcher.state.statefiles import read_json

#: Forks that a dying zygote may spoil before a start fails.
_ATTEMPTS = 3
_TAIL_BYTES = 2000

_log = structlog.get_logger(__name__)


class LocalKeeper(Keeper):
    """Watches one keeper process by its pidfd."""

    def __init__(self, process: ProcessId, pidfd: int | None, reaper: Reaper | None) -> None:
        self._process = process
        self._pidfd = pidfd
        self._reaper = reaper
        self._reason: str | None = None
        self._gone = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        loop = asyncio.get_running_loop()
        if pidfd is None:
            self._end()
        else:
            loop.add_reader(pidfd, self._end)

    def __repr__(self) -> str:
        return f"LocalKeeper(pid={self._process.pid}, {self._reason or 'alive'})"

    @property
    def alive(self) -> bool:
        return not self._gone.is_set()

    @property
    def reason(self) -> str | None:
        return self._reason

    @property
    def process(self) -> ProcessId:
        return self._process

    @property
    def handle(self) -> Mapping[str, Any]:
        return {
            "engine": LocalEngine.name,
            "pid": self._process.pid,
            "start_time": self._process.start_time,
        }

    def on_gone(self, callback: Callable[[], None]) -> None:
        if self._gone.is_set():
            asyncio.get_running_loop().call_soon(callback)
        else:
            self._callbacks.append(callback)

    async def wait_gone(self, *, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True

    def kill(self) -> None:
        self._process.send(signal.SIGKILL)

    def release(self) -> None:
        self._close()
        self._callbacks.clear()

    def _end(self) -> None:
        status = None if self._reaper is None else self._reaper.take(self._process.pid)
        self._reason = f"the keeper {describe_status(status)}"
        self._close()
        self._gone.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _close(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


class LocalEngine(Engine):
    """``entry`` is the keeper's ``module:function``, called as ``function(config, ready_fd=N)``.

    ``environment`` is the keepers' own; a kernel's comes with its config. Without a ``reaper``
    (a process whose children are not all ours) exit statuses are not known. ``preload``: modules
    that a keeper imports late; having them before the fork saves each keeper their import.
    """

    name = "local"

    def __init__(
        self,
        *,
        entry: str,
        environment: Mapping[str, str],
        start_timeout: float,
        reaper: Reaper | None = None,
        preload: tuple[str, ...] = (),
    ) -> None:
        self._entry = entry
        self._start_timeout = start_timeout
        self._reaper = reaper
        modules = (entry.partition(":")[0], *preload)
        self._nursery = Nursery(modules=modules, environment=environment, reaper=reaper)

    def __repr__(self) -> str:
        return f"LocalEngine({self._entry!r}, {self._nursery!r})"

    @property
    def zygote_pid(self) -> int | None:
        return self._nursery.pid

    async def start(self) -> None:
        self._nursery.start()

    async def close(self) -> None:
        self._nursery.close()

    async def launch(self, config: KeeperConfig) -> Keeper:
        directory = config.directory
        order = {
            "entry": self._entry,
            "kernel_id": config.kernel_id,
            "nonce": config.nonce,
            "state_dir": config.state_dir,
            "config": config.to_json().decode(),
        }
        for _attempt in range(_ATTEMPTS):
            reader, writer = os.pipe()
            try:
                try:
                    process = await self._fork(order, writer)
                finally:
                    os.close(writer)
                ready = await _wait_byte(reader, timeout=self._start_timeout)
            finally:
                os.close(reader)
            launched = read_launch_file(directory)
            if process is None and launched is None and ready is not None:
                continue  # the zygote died before its fork; the pipe proves that there is none
            found = process if launched is None else launched.process
            return await self._settle(directory, found, ready)
        raise LaunchFailed("the process that keepers are forked from died again and again")

    async def find(self, directory: Path) -> Keeper | None:
        launched = read_launch_file(directory)
        if launched is None or not launched.this_boot:
            return None
        pidfd = launched.process.open()
        if pidfd is None:
            return None
        return LocalKeeper(launched.process, pidfd, self._reaper)

    async def end_kernel(self, directory: Path, *, mark: str, timeout: float) -> bool:
        return await asyncio.to_thread(end_kernel_processes, directory, mark=mark, timeout=timeout)

    async def _fork(self, order: dict[str, Any], writer: int) -> ProcessId | None:
        try:
            pid = await self._nursery.fork(order, writer)
        except ZygoteGone as error:
            _log.warning("fork lost", kernel_id=order["kernel_id"], error=str(error))
            return None
        except ZygoteBroken as error:
            raise LaunchFailed(f"no keeper can be started: {error}") from error
        try:
            return ProcessId.of(pid)
        except OSError:
            return None  # no descriptor to look with: the keeper names itself in its file

    async def _settle(
        self, directory: Path, process: ProcessId | None, ready: bool | None
    ) -> Keeper:
        """A keeper that is ready; else LaunchFailed once nothing of it is left."""
        if process is None:
            raise LaunchFailed(f"the keeper ended at its start{_last_words(directory)}")
        keeper = LocalKeeper(process, process.open(), self._reaper)
        if ready and read_keeper_file(directory) is not None:
            return keeper
        if ready is None:
            keeper.kill()
        await keeper.wait_gone(timeout=5.0)
        keeper.release()
        if ready is None:
            raise LaunchFailed(
                f"the keeper was not ready after {self._start_timeout:g} s and was killed"
                f"{_last_words(directory)}"
            )
        raise LaunchFailed(f"{keeper.reason or 'the keeper failed'}{_last_words(directory)}")


def end_kernel_processes(directory: Path, *, mark: str, timeout: float) -> bool:
    """Kill what is left of a kernel; True when proven that nothing is. Blocks.

    Two ways to find them: the process group that keeper.json names, and the mark in the
    environment, which also finds a kernel that was started an instant before its keeper died.
    Sockets that the keeper had to put outside its directory (a path too long) go with them.
    """
    found = read_keeper_file(directory)
    launched = read_launch_file(directory)
    same_boot = launched is not None and launched.this_boot
    named = found if same_boot else None
    group = named.group if named is not None else None
    kernel = named.kernel if named is not None else None
    for _round in range(20):  # what is killed may just have started another
        left = set(marked(MARK, mark))
        if group is not None:
            left.update(group.members())
        if kernel is not None and kernel.running:
            left.add(kernel)
        if not left:
            _remove_sockets(directory)
            return True
        for process in left:
            process.send(signal.SIGKILL)
        if wait_ended(sorted(left), timeout=timeout):
            return False
    return False


def _remove_sockets(directory: Path) -> None:
    """The file lies where the user's code can write: only what looks like a keeper's is removed."""
    record = read_json(directory / "kernel" / "incarnation.json") or {}
    named = record.get("socket_dir")
    path = Path(named) if isinstance(named, str) else None
    if path is None or not path.name.startswith("holdfast-") or path.is_symlink():
        return
    shutil.rmtree(path, ignore_errors=True)


async def _wait_byte(fd: int, *, timeout: float) -> bool | None:
    """True: a byte came; False: end of file; None: neither in ``timeout`` seconds."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _mark_done, readable)
    try:
        async with asyncio.timeout(timeout):
            await readable
    except TimeoutError:
        return None
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 1) != b""


def _mark_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _last_words(directory: Path) -> str:
    """The end of the keeper's log, to follow a sentence."""
    with contextlib.suppress(OSError), (directory / LOG_FILE).open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace").strip()
        if text:
            return "; it said: " + "\n".join(text.splitlines()[-10:])
    return ""
