"""How often somebody may try a wrong token before having to wait. Pure; time is passed in.

Counts failures per address in a sliding window. While an address waits, a right token is refused
too: otherwise the wait would tell a guesser nothing and cost nothing. Bounded in memory: the
address that failed longest ago is forgotten first. Must not know HTTP. Rejected: one count for
everybody, by which any stranger could keep the admins out.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from typing import Final

#: Wrong tokens that one address has in ``WINDOW`` seconds.
LIMIT: Final = 10
WINDOW: Final = 60.0
#: Addresses that are remembered.
_ADDRESSES: Final = 1024


class Attempts:
    """Failed sign-ins of the last minute, per address."""

    def __init__(self, *, limit: int = LIMIT, window: float = WINDOW) -> None:
        self._limit = limit
        self._window = window
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Attempts: {len(self._failures)} addresses>"

    def wait(self, address: str, *, now: float) -> float:
        """Seconds until this address may try again; 0 when it may."""
        failures = self._failures.get(network_of(address))
        if failures is None or len(failures) < self._limit:
            return 0.0
        return max(0.0, failures[0] + self._window - now)

    def failed(self, address: str, *, now: float) -> None:
        """Count a wrong token."""
        network = network_of(address)
        failures = self._failures.setdefault(network, deque(maxlen=self._limit))
        failures.append(now)
        self._failures.move_to_end(network)
        while len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)


def network_of(address: str) -> str:
    """The address itself, or the /64 of an IPv6 one, which one person has whole."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
