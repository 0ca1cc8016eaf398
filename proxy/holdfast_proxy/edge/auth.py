"""Who asks, and may a page of that origin ask: decided alike for REST and websockets.

Pure decisions over headers; must not know routes or kernels. Tokens are compared through their
SHA-256 by ``hmac.compare_digest``, every known token each time, so that neither length nor order
shows in the time taken. A token in a query string ends in logs and histories, so it counts only
where the configuration says so. Rejected: cookies (they would need XSRF tokens, and no gateway
client uses them).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ..config import ProxyConfig, Secret, is_loopback
from ..errors import Forbidden, Unauthorized

FORWARDED: Final = "Holdfast-Forwarded"
USER: Final = "Holdfast-User"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a request acts for. ``user`` None: everybody's kernels, told so by another proxy.

    ``forwarded_by`` is the id of the proxy that passed the request on.
    """

    user: str | None
    forwarded_by: str | None = None


class Authenticator:
    """Knows the digests of all tokens; the tokens themselves are not kept."""

    def __init__(self, config: ProxyConfig) -> None:
        pairs = [(user.token, user.name) for user in config.users]
        if config.token is not None:
            pairs.append((config.token, config.user))
        self._tokens = tuple((_digest(token), name) for token, name in pairs if token is not None)
        self._open_user = config.user
        self._cluster_key = _secret_digest(config.cluster_key)
        self._query_allowed = config.allow_token_in_query

    def __repr__(self) -> str:
        return f"<Authenticator {len(self._tokens)} tokens>"

    @property
    def is_open(self) -> bool:
        """No token is configured: whoever reaches the (loopback) port is the one user."""
        return not self._tokens

    def identify(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
        """Who asks. Raises Unauthorized, without saying which part was wrong."""
        credential = bearer(headers)
        forwarded_by = headers.get(FORWARDED)
        if forwarded_by is not None:
            return self._identify_peer(credential, forwarded_by, headers.get(USER))
        if self.is_open:
            return Identity(self._open_user)
        if credential is None and self._query_allowed:
            credential = query.get("token")
        user = self._user_of(credential)
        if user is None:
            raise Unauthorized(
                'a valid token is needed: send "Authorization: token <token>"',
                reason="unauthorized",
            )
        return Identity(user)

    def _identify_peer(
        self, credential: str | None, forwarded_by: str, user: str | None
    ) -> Identity:
        if (
            self._cluster_key is None
            or credential is None
            or not hmac.compare_digest(_digest(credential), self._cluster_key)
        ):
            raise Unauthorized("a forwarded request needs the cluster key", reason="unauthorized")
        return Identity(user or None, forwarded_by)

    def _user_of(self, credential: str | None) -> str | None:
        offered = _digest(credential or "")
        found: str | None = None
        for digest, name in self._tokens:
            if hmac.compare_digest(offered, digest):
                found = name
        return found


def bearer(headers: Mapping[str, str]) -> str | None:
    """The credential of ``Authorization: Bearer …`` or ``token …`` (Jupyter's own scheme)."""
    scheme, _, credential = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() not in ("bearer", "token") or not credential.strip():
        return None
    return credential.strip()


def check_origin(
    headers: Mapping[str, str], *, allowed: tuple[str, ...], is_open: bool
) -> str | None:
    """Refuse a page of a foreign origin; the origin to answer CORS headers for, or None.

    Without an Origin header no browser page asks, and it passes. A proxy without tokens also
    refuses names that are not this machine's, or a page could reach it by rebinding DNS.
    Raises Forbidden.
    """
    host = headers.get("Host", "")
    if is_open and not is_loopback(_hostname(host)):
        raise Forbidden(
            "a proxy without a token answers to loopback names only", reason="foreign_host"
        )
    origin = headers.get("Origin")
    if origin is None:
        return None
    if "*" in allowed or origin in allowed:
        return origin
    if origin != "null" and _authority(origin) == host.lower():
        return None
    raise Forbidden(
        "this origin may not ask; add it to allow_origin if it should", reason="foreign_origin"
    )


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as "http://["
        return None


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _digest(token: str | Secret) -> bytes:
    text = token.reveal() if isinstance(token, Secret) else token
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _secret_digest(secret: Secret | None) -> bytes | None:
    return None if secret is None else _digest(secret)
