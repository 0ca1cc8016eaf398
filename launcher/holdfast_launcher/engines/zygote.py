"""The process that keepers are forked from: everything imported, nothing opened.

``python -m holdfast_launcher.engines.zygote FD MODULE…`` runs as the launcher's child and reads
orders from the socket FD. A fork of it is a keeper in milliseconds that shares its pages; from
scratch one takes most of a second and 45 MB (DESIGN section 1).

Invariant, checked before each fork: one thread, no event loop, no ZMQ context, no open file but
the standard ones, the socket and what came with the order. Otherwise a child would share a lock
that nobody unlocks, a poller or a socket with its siblings.

It must not know the launcher's state. It gets secrets by the socket only: argv and environment
are readable by others, and it is not dumpable. It ends with its launcher, by end of file.
Rejected: multiprocessing's fork server (no double fork, and it tracks what it should forget).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from holdfast_launcher.processes import (
    ProcessId,
    become_undumpable,
    machine_boot_id,
    set_process_name,
)
from holdfast_launcher.state.statefiles import write_json

LAUNCH_FILE = "launch.json"
LOG_FILE = "keeper.log"
_LENGTH = struct.Struct("!I")
#: An environment of this size does not fit into execve(2) anyway.
MAX_ORDER = 16 * 1024 * 1024
#: /proc/self/fd is closed to a process that is not dumpable, so descriptors are probed. The lowest
#: free number is given out first: what an import leaves open is down here.
_PROBED_FDS = 256
_ALL_FDS = 1 << 20
#: sysexits.h EX_SOFTWARE: the keeper raised.
_EX_SOFTWARE = 70


class Contaminated(Exception):
    """The zygote has something open that a keeper must not inherit."""


def send_message(link: socket.socket, value: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Write one length-prefixed JSON message; descriptors travel with its first byte."""
    body = json.dumps(value, separators=(",", ":")).encode()
    head = _LENGTH.pack(len(body))
    sent = socket.send_fds(link, [head], list(fds)) if fds else link.send(head)
    link.sendall(head[sent:] + body)


def receive_message(link: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Read one message and its descriptors; None at the end of the stream."""
    head, fds, _flags, _address = socket.recv_fds(link, _LENGTH.size, 4)
    rest = _receive_exactly(link, _LENGTH.size - len(head)) if head else None
    if rest is None:
        return None
    (length,) = _LENGTH.unpack(head + rest)
    if length > MAX_ORDER:
        raise ValueError(f"message of {length} bytes")
    body = _receive_exactly(link, length)
    if body is None:
        return None
    value: dict[str, Any] = json.loads(body)
    return value, fds


def _receive_exactly(link: socket.socket, count: int) -> bytes | None:
    pieces = bytearray()
    while len(pieces) < count:
        piece = link.recv(count - len(pieces))
        if not piece:
            return None
        pieces += piece
    return bytes(pieces)


def main(arguments: list[str]) -> int:
    """Import the keeper's module, then serve orders until the launcher is gone."""
    # What the launcher was started with (a shell's or a supervisor's descriptors) ends here.
    os.closerange(int(arguments[0]) + 1, _ALL_FDS)
    link = socket.socket(fileno=int(arguments[0]))
    link.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    set_process_name("holdfast-zygote")
    become_undumpable()
    try:
        for name in arguments[1:]:
            importlib.import_module(name)
    except BaseException as error:  # whatever an import raises, the launcher must be told
        traceback.print_exc()
        send_message(link, {"error": f"{type(error).__name__}: {error}"})
        return 1
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, shared pages
    send_message(link, {"ready": True})
    while (order := receive_message(link)) is not None:
        send_message(link, _serve(link, *order))
    return 0


def _serve(link: socket.socket, order: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    try:
        check_clean(allowed={0, 1, 2, link.fileno(), *fds})
        return {"pid": _fork_keeper(link, order, ready_fd=fds[0])}
    except (Contaminated, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        for fd in fds:
            os.close(fd)


def check_clean(*, allowed: set[int]) -> None:
    """Raise Contaminated when a fork would inherit what it must not (module docstring)."""
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise Contaminated(f"{len(threads)} threads instead of one")
    if asyncio._get_running_loop() is not None or _has_current_loop():  # noqa: SLF001 - the public one raises
        raise Contaminated("an event loop exists")
    zmq = sys.modules.get("zmq")
    if zmq is not None and zmq.Context._instance is not None:  # noqa: SLF001 - instance() would make it
        raise Contaminated("a ZMQ context exists")
    extra = {fd for fd in range(_PROBED_FDS) if fd not in allowed and _is_open(fd)}
    if extra:
        raise Contaminated(f"descriptors {sorted(extra)} are open")


def _has_current_loop() -> bool:
    # The policy's own slot: get_event_loop() would make a loop, or warn.
    local = getattr(asyncio.get_event_loop_policy(), "_local", None)
    return getattr(local, "_loop", None) is not None


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError as error:
        if error.errno == errno.EBADF:
            return False
        raise
    return True


def _fork_keeper(link: socket.socket, order: dict[str, Any], *, ready_fd: int) -> int:
    """Fork twice and answer the grandchild's pid: the one in between ends, so the keeper becomes
    a child of the nearest subreaper, the launcher, and sends the zygote no SIGCHLD."""
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            pid = os.fork()
            if pid == 0:
                os.close(reader)
                os.close(writer)
                _become_keeper(link, order, ready_fd=ready_fd)
            os.write(writer, _LENGTH.pack(pid))
        finally:
            os._exit(0)
    os.close(writer)
    try:
        answer = os.read(reader, _LENGTH.size)
    finally:
        os.close(reader)
        os.waitpid(between, 0)
    if len(answer) != _LENGTH.size:
        raise OSError(errno.EAGAIN, "the second fork failed")
    pid = _LENGTH.unpack(answer)[0]
    return int(pid)


def _become_keeper(link: socket.socket, order: dict[str, Any], *, ready_fd: int) -> NoReturn:
    """Leave everything of the launcher behind, then run the keeper's entry; never returns."""
    code = _EX_SOFTWARE
    try:
        os.setsid()
        directory = Path(order["state_dir"])
        _redirect_output(directory / LOG_FILE)
        link.close()
        ready_fd = _keep_only(ready_fd)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        become_undumpable()
        set_process_name(f"keeper-{order['kernel_id'][:8]}")
        write_launch_file(directory, order)
        module, _, function = order["entry"].partition(":")
        run = getattr(importlib.import_module(module), function)
        code = int(run(_decode(order["config"]), ready_fd=ready_fd))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else _EX_SOFTWARE
    except BaseException:  # the outer edge of a process: say why and end
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        # Not sys.exit: nothing of the zygote's own stack may run in a keeper.
        os._exit(code)


def _decode(config: str) -> Any:
    from holdfast_launcher.keeper.config import KeeperConfig

    return KeeperConfig.from_json(config)


def write_launch_file(directory: Path, order: dict[str, Any]) -> None:
    """The keeper's first act: who it is, so that a launcher that restarts in this moment finds
    it before there is a keeper.json."""
    me = ProcessId.of(os.getpid())
    write_json(
        directory / LAUNCH_FILE,
        {
            "kernel_id": order["kernel_id"],
            "nonce": order["nonce"],
            "pid": os.getpid(),
            "start_time": None if me is None else me.start_time,
            "machine_boot_id": machine_boot_id(),
        },
    )


def _redirect_output(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(null)


def _keep_only(ready_fd: int) -> int:
    """Close every descriptor above 2 but this one; answer its new number."""
    if ready_fd != 3:  # dup3(2) refuses equal numbers
        os.dup2(ready_fd, 3)
    os.set_inheritable(3, False)
    os.closerange(4, _ALL_FDS)
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
