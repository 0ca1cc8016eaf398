"""Which ports the tree uses. Chosen once, kept by every restart of a child.

A restarted proxy must come back where its clients look for it, and a second `holdfast up` on the
same state directory prefers the ports of the first. Free ports are taken below the kernel's
ephemeral range, so that no outgoing connection takes one while its child is being restarted.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
_FREE_FROM, _FREE_TO = 20_000, 32_767
_TRIES = 2_000


class PortTaken(Exception):
    """A port that was asked for is in use; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback TCP ports of one tree. ``lab`` is set even when no lab is started."""

    proxies: tuple[int, ...]
    launchers: tuple[int, ...]
    lab: int
    etcd_client: int
    etcd_peer: int

    @property
    def all(self) -> tuple[int, ...]:
        return (*self.proxies, self.lab, *self.launchers, self.etcd_client, self.etcd_peer)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Ports | None:
        """What an earlier run kept; None when it is not what we write."""
        try:
            proxies, launchers = tuple(data["proxies"]), tuple(data["launchers"])
            ports = cls(proxies, launchers, data["lab"], data["etcd_client"], data["etcd_peer"])
        except (TypeError, KeyError):
            return None
        return ports if all(isinstance(port, int) for port in ports.all) else None


def is_free(port: int) -> bool:
    """Whether loopback ``port`` can be listened on now.

    SO_REUSEADDR, as servers set it: connections in TIME_WAIT do not take a port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(
    first: int,
    *,
    proxies: int,
    launchers: int,
    earlier: Ports | None,
    free: Callable[[int], bool] = is_free,
    rng: random.Random | None = None,
) -> Ports:
    """Ports for a tree: from ``first`` on, or free ones when it is 0.

    Raises PortTaken when a port from ``first`` on is in use.
    """
    count = proxies + launchers + 3
    if first:
        return _split(_consecutive(first, count, free), proxies, launchers)
    if (
        earlier is not None
        and (len(earlier.proxies), len(earlier.launchers)) == (proxies, launchers)
        and all(free(port) for port in earlier.all)
    ):
        return earlier
    return _split(_random(count, free, rng or random.SystemRandom()), proxies, launchers)


def _consecutive(first: int, count: int, free: Callable[[int], bool]) -> list[int]:
    ports = list(range(first, first + count))
    for port in ports:
        if port > 65_535 or not free(port):
            raise PortTaken(
                f"port {port} of {ports[0]}-{ports[-1]} is not free: "
                "choose another --port, or --port 0 for any free ones"
            )
    return ports


def _random(count: int, free: Callable[[int], bool], rng: random.Random) -> list[int]:
    found: list[int] = []
    for _ in range(_TRIES):
        port = rng.randint(_FREE_FROM, _FREE_TO)
        if port not in found and free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise PortTaken(f"no {count} free ports between {_FREE_FROM} and {_FREE_TO}")


def _split(ports: Iterable[int], proxies: int, launchers: int) -> Ports:
    """Proxies come first, then JupyterLab: those are the addresses that people see."""
    rest = list(ports)
    edge, rest = rest[:proxies], rest[proxies:]
    lab, rest = rest[0], rest[1:]
    return Ports(tuple(edge), tuple(rest[:launchers]), lab, rest[launchers], rest[launchers + 1])
