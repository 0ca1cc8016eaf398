"""A real HAProxy on loopback, configured by the file that docs/howto hands to administrators.

Only what differs from machine to machine is put in its place: addresses and certificates. Every
timeout, check and rule that a test sees is the file's own.
"""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from support.processes import ManagedProcess, free_port, wait_until
from support.system import need_command

CONFIG = Path(__file__).parents[2] / "docs" / "howto" / "haproxy.cfg"
_BIND = re.compile(r"^( +bind) :8443 ssl crt \S+ alpn \S+", re.MULTILINE)
_SERVER = re.compile(r"^( +server) (edge-\d) \S+ ssl verify required ca-file \S+$", re.MULTILINE)


def binary() -> str:
    """The path of haproxy; a named skip (in CI a failure) without it."""
    return need_command("haproxy", package="haproxy")


def localised(port: int, proxy_urls: list[str]) -> str:
    """docs/howto/haproxy.cfg for proxies and a frontend on loopback, without TLS."""
    text, binds = _BIND.subn(rf"\1 127.0.0.1:{port}", CONFIG.read_text())
    addresses = [urlsplit(url).netloc for url in proxy_urls]

    def server(match: re.Match[str]) -> str:
        number = int(match[2].removeprefix("edge-")) - 1
        if number >= len(addresses):
            return "    # no such proxy here"
        return f"{match[1]} {match[2]} {addresses[number]}"

    text, servers = _SERVER.subn(server, text)
    assert binds == 1, "the file's bind line has changed: change the pattern, too"
    assert servers == 6, "the file's server lines have changed: change the pattern, too"
    return text


class HAProxy:
    """One HAProxy in front of ``proxy_urls``; ``url`` is the one address."""

    def __init__(self, base: Path, proxy_urls: list[str]) -> None:
        base.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config, extra = base / "haproxy.cfg", base / "stats.cfg"
        config.write_text(localised(self.port, proxy_urls))
        # Below 108 bytes, which is what a socket's path may have.
        self._admin = base / "admin"
        extra.write_text(f"global\n    stats socket {self._admin} mode 600 level admin\n")
        command = [binary(), "-db", "-f", str(config), "-f", str(extra)]
        self.process = ManagedProcess("haproxy", command, log=base / "haproxy.log")

    def __repr__(self) -> str:
        return f"<HAProxy {self.url} {self.process}>"

    def start(self) -> HAProxy:
        self.process.start()
        wait_until(self._is_ready, seconds=10, what=f"haproxy:\n{self.process.tail()}")
        return self

    def stop(self) -> None:
        self.process.stop(3)

    def states(self, backend: str = "holdfast_ready") -> dict[str, str]:
        """Server → UP, DOWN … as HAProxy's own health checks see it."""
        return {name: text.split()[0] for name, text in self._column("status", backend).items()}

    def sessions(self, backend: str = "holdfast_ready") -> dict[str, int]:
        """Server → connections that it carries now."""
        return {name: int(text or 0) for name, text in self._column("scur", backend).items()}

    def wait_states(self, *states: str, seconds: float = 10) -> None:
        """Wait until the servers, in order, are in these states."""
        wait_until(
            lambda: tuple(self.states().values()) == states,
            seconds=seconds,
            what=f"{states} at haproxy, which says {self.states()}",
        )

    def carrier(self) -> int:
        """Which proxy carries the one open websocket (the number of its server line)."""

        def one() -> list[int]:
            busy = [n for n, count in enumerate(self.sessions().values()) if count]
            return busy if len(busy) == 1 else []

        return wait_until(one, seconds=10, what="one server with a connection")[0]

    def _is_ready(self) -> bool:
        assert self.process.alive, f"haproxy ended:\n{self.process.tail()}"
        try:
            return "UP" in self.states().values()
        except OSError:
            return False

    def _column(self, name: str, backend: str) -> dict[str, str]:
        rows = [line.split(",") for line in self._ask("show stat").splitlines() if line]
        header = [title.strip("# ") for title in rows[0]]
        table = [dict(zip(header, row, strict=False)) for row in rows[1:]]
        return {
            row["svname"]: row[name]
            for row in table
            if row["pxname"] == backend and row["svname"] not in {"BACKEND", "FRONTEND"}
        }

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(str(self._admin))
            link.sendall(f"{command}\n".encode())
            parts = []
            while part := link.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()


def check(config: Path) -> subprocess.CompletedProcess[str]:
    """What ``haproxy -c`` says of a file."""
    return subprocess.run(
        [binary(), "-c", "-f", str(config)], capture_output=True, text=True, check=False, timeout=30
    )
