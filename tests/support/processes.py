"""Processes that a test starts, signals and always ends, by process id.

Each runs in a session of its own with its output in a file; nothing is ever matched by name.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


_held: list[socket.socket] = []


def free_port() -> int:
    """A TCP port on loopback that stays free for a server until this process ends.

    It is kept bound, never listening: Linux then gives it to no outgoing connection and to nobody
    who asks for any port, while a server, which sets SO_REUSEADDR, can listen on it, be killed and
    come back. A port that was merely free a moment ago was once taken by a connection meanwhile.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _held.append(probe)
    return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], T | None], *, seconds: float, what: str) -> T:
    """Poll ``condition`` until it is truthy. Raises TimeoutError that says what was awaited."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class ManagedProcess:
    """One process, which can be killed and started again with the same command line."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<ManagedProcess {self.name} pid={self._process.pid if self._process else None}>"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> float:
        """SIGKILL, and wait until it is gone; the monotonic time just before the signal."""
        moment = time.monotonic()
        self.signal(signal.SIGKILL)
        self.wait(5)
        return moment

    def wait(self, seconds: float) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self, seconds: float = 10) -> None:
        """SIGTERM, then SIGKILL. Idempotent; also for one that is frozen."""
        if not self.alive:
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, lines: int = 40) -> str:
        """The last lines of its output, for a failure's message."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])
