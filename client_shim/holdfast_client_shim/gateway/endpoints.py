"""The gateway's addresses: which to try first, which is down, which may be learned.

Pure: it knows no socket and no clock. A URL that somebody on the wire tells us would receive our
token, so it is believed only under the rule of ``may_learn``; trusting every answer that came
over plain HTTP was rejected for that reason.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

#: How long in seconds an endpoint that failed is tried only after all others.
DOWN_SECONDS = 5.0
#: Learned endpoints that are kept; the least recently named go first.
MAX_LEARNED = 16


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One gateway: base URLs for REST and for websockets, without a slash at the end."""

    url: str
    ws_url: str = field(default="")

    @classmethod
    def of(cls, url: str, ws_url: str | None = None) -> Endpoint:
        """Raises ValueError when ``url`` is not an http or https URL with a host."""
        url = url.strip().rstrip("/")
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            shown = _without_user(url)
            raise ValueError(f"a gateway URL starts with http:// or https://, not {shown!r}")
        ws_url = (ws_url or "").strip().rstrip("/") or "ws" + url[4:]
        return cls(url, ws_url)

    def __repr__(self) -> str:
        return f"<Endpoint {self.name}>"

    @property
    def name(self) -> str:
        """The URL as it may be shown and logged: without a user and password."""
        return _without_user(self.url)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def secure(self) -> bool:
        return self.url.lower().startswith("https:")

    @property
    def loopback(self) -> bool:
        """Whether the host is this machine; names other than localhost are not resolved."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def may_learn(source: Endpoint, learned: Endpoint, *, certificates_verified: bool) -> bool:
    """Whether an endpoint told by ``source`` may get our token.

    Invariant: the token goes only to hosts that were configured, or named over a connection
    that nobody can have forged: verified TLS to verified TLS, or inside this machine.
    """
    if source.secure and learned.secure:
        return certificates_verified
    return source.loopback and learned.loopback and not source.secure


def _without_user(url: str) -> str:
    scheme, slashes, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}"


class EndpointPool:
    """Configured and learned endpoints, in the order in which they are to be tried."""

    def __init__(self, configured: Sequence[Endpoint]) -> None:
        if not configured:
            raise ValueError("at least one gateway URL is needed")
        self._configured = tuple(dict.fromkeys(configured))
        self._learned: tuple[Endpoint, ...] = ()
        self._down: dict[Endpoint, float] = {}
        self._preferred = self._configured[0]
        #: Whether one of them has shown itself to be Holdfast.
        self.is_holdfast = False

    def __repr__(self) -> str:
        down = ", ".join(endpoint.name for endpoint in self._down)
        return f"<EndpointPool {[e.name for e in self.endpoints]} down: {down or 'none'}>"

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._configured + self._learned

    @property
    def preferred(self) -> Endpoint:
        return self._preferred

    def order(self, now: float) -> list[Endpoint]:
        """Every endpoint: the preferred, the others, then the ones down, longest down first."""
        self._down = {e: t for e, t in self._down.items() if now - t < DOWN_SECONDS}
        up = [e for e in self.endpoints if e not in self._down]
        up.sort(key=lambda endpoint: endpoint != self._preferred)
        down = [e for e in self.endpoints if e in self._down]
        return up + sorted(down, key=lambda endpoint: self._down[endpoint])

    def is_down(self, endpoint: Endpoint, now: float) -> bool:
        return now - self._down.get(endpoint, float("-inf")) < DOWN_SECONDS

    def mark_down(self, endpoint: Endpoint, now: float) -> None:
        """It failed at ``now`` (seconds of a steady clock)."""
        self._down[endpoint] = now

    def mark_up(self, endpoint: Endpoint) -> None:
        """It works: stay with it."""
        self._down.pop(endpoint, None)
        if endpoint in self.endpoints:
            self._preferred = endpoint

    def learn(
        self, source: Endpoint, urls: Iterable[str], *, certificates_verified: bool
    ) -> tuple[Endpoint, ...]:
        """Add those of ``urls`` that may be; returns the new ones.

        One that is no longer named is kept, behind the others: a proxy that is being restarted
        is missing from its peers' lists just when it may become the only one left.
        """
        before = self.endpoints
        learned: dict[Endpoint, None] = {}
        for url in urls:
            try:
                endpoint = Endpoint.of(url)
            except ValueError:
                continue
            if endpoint.url not in {e.url for e in self._configured} and may_learn(
                source, endpoint, certificates_verified=certificates_verified
            ):
                learned[endpoint] = None
        learned |= dict.fromkeys(self._learned)
        self._learned = tuple(learned)[:MAX_LEARNED]
        if self._preferred not in self.endpoints:
            self._preferred = self._configured[0]
        return tuple(e for e in self._learned if e not in before)
