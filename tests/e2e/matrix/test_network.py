"""The cables themselves: a fault that does not bite would make every row below it green."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.netns import Network, Node
from support.processes import wait_until
from support.system import need_command

pytestmark = pytest.mark.long

_ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    print("ready", flush=True)
    while True:
        link, _ = server.accept()
        with link:
            while data := link.recv(64):
                link.sendall(data)
"""


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def far(network: Network) -> Iterator[Node]:
    """A node with an echo server."""
    node = network.node("far")
    command = [*node.prefix, sys.executable, "-c", _ECHO, node.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield node
        finally:
            server.kill()


def echoes(link: socket.socket, word: bytes) -> bool:
    link.settimeout(0.5)
    try:
        link.sendall(word)
        return link.recv(64).endswith(word)
    except TimeoutError:
        return False


@pytest.mark.parametrize("fault", ["cut", "deafen", "mute"])
def test_a_cut_cable_is_a_silence_and_mends(far: Node, fault: str) -> None:
    with socket.create_connection((far.address, 7000), 5) as link:
        assert echoes(link, b"before")
        getattr(far, fault)()
        assert not echoes(link, b"during")
        with pytest.raises(TimeoutError):
            socket.create_connection((far.address, 7000), 0.5)
        far.mend()
        wait_until(lambda: echoes(link, b"after"), seconds=30, what="the same connection again")


def test_only_the_named_peer_is_cut_off(network: Network, far: Node) -> None:
    other = network.node("other")
    far.cut(to=other.address)
    with socket.create_connection((far.address, 7000), 5) as link:
        assert echoes(link, b"home is heard")
    probe = f"import socket; socket.create_connection(({far.address!r}, 7000), 0.5)"
    command = [*other.prefix, sys.executable, "-c", probe]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    far.mend()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_nothing_is_left_of_it() -> None:
    def there() -> set[str]:
        said = subprocess.run(
            [need_command("ip", package="iproute2"), "-o", "link"],
            check=True,
            capture_output=True,
            text=True,
        )
        return set(said.stdout.splitlines())

    before = there()
    with Network() as network:
        network.node("gone")
        assert there() != before, "home is a namespace of its own"
        name = network._name
    assert there() == before
    listed = subprocess.run(
        [need_command("ip", package="iproute2"), "netns"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert name not in listed
