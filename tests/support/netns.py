"""Machines on one machine: network namespaces on a switch, each with a cable that a test can cut.

    with Network() as network:
        node = network.node("node")
        subprocess.Popen([*node.prefix, "some-server", "--host", node.address])
        node.cut()      # a black hole both ways: no reset, no refusal, nothing
        node.mend()

The thread that enters is at ``home``, a namespace of its own on the same switch: loopback there is
new and empty, what it starts stays there, and nothing of the machine's own network is touched.
Threads that it starts are at home, too. Knows nothing of Holdfast. Rejected: firewall rules on
loopback, which other people's tests share, and ``ip netns exec``, which also makes a mount
namespace, so that disks that a test mounts later are not seen.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from support.system import need_command

_CLONE_NEWNET = 0x40000000
_FOLDER = Path("/run/netns")
_SUBNET = "10.77.0"
_HOME = f"{_SUBNET}.1"
_numbers = itertools.count()


class NetworkFailed(AssertionError):
    """A command that builds the network failed; the message has what it said."""


def _run(*command: str, text: str = "") -> None:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=20
    )
    if done.returncode != 0:
        raise NetworkFailed(f"{' '.join(command)}: {done.stderr.strip()}")


def _enter(file: int) -> None:
    """Put the calling thread into a network namespace (os.setns is Python 3.12's)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@dataclass(frozen=True)
class Node:
    """One machine. ``prefix`` goes before a command that is to run there; the pid stays its own.

    ``cut``, ``deafen`` and ``mute`` drop packets without a word, also those of connections that
    are open. ``to`` names the only machine that they are dropped for.
    """

    namespace: str
    address: str
    prefix: tuple[str, ...] = field(repr=False)

    def cut(self, *, to: str | None = None) -> None:
        """Nothing comes in, nothing goes out."""
        self._drop(incoming=True, outgoing=True, peer=to)

    def deafen(self, *, to: str | None = None) -> None:
        """What it sends arrives; what is sent to it does not."""
        self._drop(incoming=True, outgoing=False, peer=to)

    def mute(self, *, to: str | None = None) -> None:
        """It hears everything and is not heard."""
        self._drop(incoming=False, outgoing=True, peer=to)

    def mend(self) -> None:
        """Everything passes again. Idempotent."""
        self._nft("flush ruleset\n")

    def _drop(self, *, incoming: bool, outgoing: bool, peer: str | None) -> None:
        source, target = (f" ip saddr {peer}", f" ip daddr {peer}") if peer else ("", "")
        rules = "flush ruleset\ntable inet fault {\n"
        if incoming:
            rules += "chain into { type filter hook input priority 0;"
            rules += f' iifname != "lo"{source} drop; }}\n'
        if outgoing:
            rules += "chain away { type filter hook output priority 0;"
            rules += f' oifname != "lo"{target} drop; }}\n'
        self._nft(rules + "}\n")

    def _nft(self, rules: str) -> None:
        _run(*self.prefix, "nft", "-f", "-", text=rules)


class Network:
    """Home and its nodes. Skips the test, by name, where namespaces may not be made."""

    #: Of home itself, which is a place for processes as a node is one.
    address = _HOME
    prefix: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._name = f"holdfast-{os.getpid()}-{next(_numbers)}"
        self._nodes: list[Node] = []
        self._before: int | None = None
        for command, package in (
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("nsenter", "util-linux"),
        ):
            need_command(command, package=package)

    def __repr__(self) -> str:
        return f"<Network {self._name} of {[node.namespace for node in self._nodes]}>"

    def node(self, name: str) -> Node:
        """Another machine on the switch."""
        number = len(self._nodes) + 2
        node = self._make(f"{self._name}-{name}", f"{_SUBNET}.{number}")
        cable = f"cable{number}"
        namespace = node.namespace
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "net0", "netns", namespace)
        _run("ip", "link", "set", cable, "master", "switch", "up")
        _run("ip", "-n", namespace, "address", "add", f"{node.address}/24", "dev", "net0")
        _run("ip", "-n", namespace, "link", "set", "net0", "up")
        return node

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            pytest.skip("network namespaces need root")
        self._before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._build_home()
        except NetworkFailed as error:
            self.close()
            pytest.skip(f"network namespaces cannot be made here: {error}")
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

    def close(self) -> None:
        """Leave home, and forget all namespaces; processes in them must have ended."""
        if self._before is not None:
            _enter(self._before)
            os.close(self._before)
            self._before = None
        while self._nodes:
            _run("ip", "netns", "delete", self._nodes.pop().namespace)
        if (_FOLDER / self._name).exists():
            _run("ip", "netns", "delete", self._name)

    def _build_home(self) -> None:
        _run("ip", "netns", "add", self._name)
        file = os.open(_FOLDER / self._name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(file)
        finally:
            os.close(file)
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "switch", "type", "bridge")
        _run("ip", "address", "add", f"{_HOME}/24", "dev", "switch")
        _run("ip", "link", "set", "switch", "up")
        _run("nft", "list", "ruleset")  # refused here, it would be refused at the first fault

    def _make(self, namespace: str, address: str) -> Node:
        _run("ip", "netns", "add", namespace)
        node = Node(namespace, address, ("nsenter", f"--net={_FOLDER / namespace}", "--"))
        self._nodes.append(node)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        return node
