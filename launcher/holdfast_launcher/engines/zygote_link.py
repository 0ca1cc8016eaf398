"""The launcher's end of a zygote: starts one, gives it orders, notices its death.

It knows the socket and the process; it must not know what becomes of a forked keeper. One order
at a time, in a worker thread, because a fork takes milliseconds and a stopped zygote for ever:
past ``timeout`` it is killed and counts as dead. Whether a keeper came of an order that a dying
zygote had is not answered here; the ready pipe tells.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast_launcher.engines.zygote import receive_message, send_message
from holdfast_launcher.processes import ProcessId

_SOCKET_IN_CHILD = 3


class ZygoteGone(Exception):
    """The zygote died or was killed because it did not answer; another one can be started."""


class ZygoteBroken(Exception):
    """The zygote lives and says that it cannot; the message says why."""


class ZygoteLink:
    """One zygote process. Blocking; ``fork`` and ``wait_ready`` belong in a worker thread."""

    def __init__(self, *, modules: tuple[str, ...], environment: Mapping[str, str]) -> None:
        """Start the process (posix_spawn: no fork of the launcher's threads and memory)."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            # -P: what lies in the working directory must not shadow a module.
            command = [sys.executable, "-P", "-m", "holdfast_launcher.engines.zygote"]
            arguments = [*command, str(_SOCKET_IN_CHILD), *modules]
            self.pid = os.posix_spawn(
                sys.executable,
                arguments,
                dict(environment),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), _SOCKET_IN_CHILD),
                ],
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGTERM),
            )
        self.process = ProcessId.of(self.pid)
        self._guard = threading.Lock()
        self._users = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"ZygoteLink(pid={self.pid})"

    def wait_ready(self, *, timeout: float) -> None:
        """Wait for its imports. Raises ZygoteGone or ZygoteBroken."""
        with self._in_use():
            answer = self._receive(timeout)
        if "error" in answer:
            raise ZygoteBroken(str(answer["error"]))

    def fork(self, order: dict[str, Any], ready_fd: int, *, timeout: float) -> int:
        """Have a keeper forked; answer its pid. Raises ZygoteGone or ZygoteBroken."""
        with self._in_use():
            self._socket.settimeout(timeout)
            try:
                send_message(self._socket, order, (ready_fd,))
            except OSError as error:
                self.kill()
                raise ZygoteGone(str(error)) from error
            answer = self._receive(timeout)
        if "error" in answer:
            raise ZygoteBroken(str(answer["error"]))
        return int(answer["pid"])

    def kill(self) -> None:
        if self.process is not None:
            self.process.send(signal.SIGKILL)

    def close(self) -> None:
        """End of file for the zygote: it ends by itself. Idempotent; from any thread.

        Invariant: the descriptor is not closed while a worker thread uses it, because its number
        may be another file's by then. Shutting the socket down wakes that thread, and the last
        user closes.
        """
        with self._guard:
            self._closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if not self._users:
                self._socket.close()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """Raises ZygoteGone when it was closed already."""
        with self._guard:
            if self._closed:
                raise ZygoteGone("the zygote ended")
            self._users += 1
        try:
            yield
        finally:
            self._let_go()

    def _let_go(self) -> None:
        with self._guard:
            self._users -= 1
            if self._closed and not self._users:
                self._socket.close()

    def _receive(self, timeout: float) -> dict[str, Any]:
        self._socket.settimeout(timeout)
        try:
            message = receive_message(self._socket)
        except (OSError, ValueError) as error:
            self.kill()
            raise ZygoteGone(f"no answer from the zygote: {error}") from error
        if message is None:
            raise ZygoteGone("the zygote ended")
        return message[0]
