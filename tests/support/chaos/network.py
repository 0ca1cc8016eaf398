"""Network namespaces of a run's own, and packets that disappear in them.

The whole run lives in a namespace that nobody else sees (``python -m support.chaos`` enters it
with unshare(1)), and one launcher with its kernels in a second one behind a veth pair. Both are
gone with their processes: no name is left behind. Packets are dropped by nft; bandwidth is tbf's.
"""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

HUB_ADDRESS = "10.77.0.1"
NODE_ADDRESS = "10.77.0.2"
_HUB_LINK, _NODE_LINK = "hub0", "node0"
_UNSHARE = "/usr/bin/unshare"
_TABLE = ("inet", "chaos")


class NoNamespaces(Exception):
    """This machine gives us none; the message says what was refused."""


def run_command(*command: str) -> None:
    """Run it to its end. Raises NoNamespaces with what it said."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=20)
    except OSError as error:
        raise NoNamespaces(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise NoNamespaces(f"{' '.join(command)}: {said}")


class Network:
    """The namespace that we are in, and a node's. ``close`` ends what holds the node's."""

    def __init__(self) -> None:
        self._holder: subprocess.Popen[bytes] | None = None
        self._chains: dict[int, list[str]] = {}

    def __repr__(self) -> str:
        return f"<Network node held by {self._holder and self._holder.pid}>"

    def open(self) -> None:
        """Raises NoNamespaces; never call it in a namespace that is not ours alone."""
        run_command("ip", "link", "set", "lo", "up")
        ready = subprocess.Popen(
            [_UNSHARE, "--net", "sh", "-c", "echo ready; exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._holder = ready
        if ready.stdout is None or ready.stdout.readline() != b"ready\n":
            raise NoNamespaces("unshare --net: no second namespace")
        node = str(ready.pid)
        run_command(
            "ip",
            "link",
            "add",
            _HUB_LINK,
            "type",
            "veth",
            "peer",
            "name",
            _NODE_LINK,
            "netns",
            node,
        )
        run_command("ip", "addr", "add", f"{HUB_ADDRESS}/24", "dev", _HUB_LINK)
        run_command("ip", "link", "set", _HUB_LINK, "up")
        self.in_node("ip", "addr", "add", f"{NODE_ADDRESS}/24", "dev", _NODE_LINK)
        self.in_node("ip", "link", "set", _NODE_LINK, "up")
        self.in_node("ip", "link", "set", "lo", "up")
        run_command("nft", "add", "table", *_TABLE)

    def close(self) -> None:
        """Idempotent."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
            if self._holder.stdout is not None:
                self._holder.stdout.close()
            self._holder = None

    @property
    def node_prefix(self) -> list[str]:
        """What a command begins with to run on the node."""
        assert self._holder is not None, "open() first"
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]

    @property
    def holder(self) -> int:
        """The process that keeps the node's namespace."""
        assert self._holder is not None, "open() first"
        return self._holder.pid

    def in_node(self, *command: str) -> None:
        run_command(*self.node_prefix, *command)

    async def drop_port(self, fault: int, port: int, *, to_server: bool, to_client: bool) -> None:
        """No packet to (from) the server at ``port`` arrives any more, until ``heal(fault)``."""
        rules = []
        if to_server:
            rules.append(("tcp", "dport", str(port), "drop"))
        if to_client:
            rules.append(("tcp", "sport", str(port), "drop"))
        await self._chain(fault, "input", rules)

    async def cut_node(self, fault: int, *, to_node: bool, from_node: bool) -> None:
        """Nothing goes to (comes from) the node any more."""
        if to_node:
            await self._chain(fault, "output", [("oifname", _HUB_LINK, "drop")])
        if from_node:
            await self._chain(fault, "input", [("iifname", _HUB_LINK, "drop")])

    async def reset_node(self, fault: int) -> None:
        """What the node sends is answered with RST."""
        rule = ("iifname", _HUB_LINK, "meta", "l4proto", "tcp", "reject", "with", "tcp", "reset")
        await self._chain(fault, "input", [rule])

    async def slow_node(self, rate: str) -> None:
        """``rate`` as tc has it, such as ``200kbit``."""
        limit = ("rate", rate, "burst", "16kb", "latency", "300ms")
        await self._run("tc", "qdisc", "replace", "dev", _HUB_LINK, "root", "tbf", *limit)

    async def hurry_node(self) -> None:
        """As fast as it can again."""
        await self._run("tc", "qdisc", "del", "dev", _HUB_LINK, "root")

    async def heal(self, fault: int) -> None:
        """What this fault dropped arrives again."""
        for chain in self._chains.pop(fault, []):
            await self._run("nft", "delete", "chain", *_TABLE, chain)

    async def _chain(self, fault: int, hook: str, rules: list[tuple[str, ...]]) -> None:
        """A chain of the fault's own, so that healing one does not heal another."""
        chain = f"fault{fault}{hook}"
        await self._run("nft", "add", "chain", *_TABLE, chain, _hook(hook))
        self._chains.setdefault(fault, []).append(chain)
        for rule in rules:
            await self._run("nft", "add", "rule", *_TABLE, chain, *rule)

    @staticmethod
    async def _run(*command: str) -> None:
        await asyncio.to_thread(run_command, *command)


def _hook(name: str) -> str:
    return f"{{ type filter hook {name} priority 0 ; }}"


def namespace_of(pid: int | str) -> str:
    """The network namespace of a process; empty when it is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""
