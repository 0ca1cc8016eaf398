"""Who may call: the credential on every request, and the grants of a connection. Pure."""

from __future__ import annotations

import hashlib
import hmac

_BEARER = "bearer "


def has_credential(authorization: str | None, credential: str) -> bool:
    """Whether the ``Authorization`` header carries ``credential``; constant time.

    Digests are compared, so that not even the credential's length shows in the time.
    """
    given = authorization or ""
    scheme, token = given[: len(_BEARER)].lower(), given[len(_BEARER) :].strip()
    wanted = hashlib.sha256(credential.encode()).digest()
    same = hmac.compare_digest(hashlib.sha256(token.encode("utf-8", "replace")).digest(), wanted)
    return same and scheme == _BEARER and bool(credential)


def parse_grants(header: str | None) -> frozenset[str]:
    """The grants that the proxy passes in ``Holdfast-Grants``; none when it says nothing."""
    return frozenset(part.strip() for part in (header or "").split(",") if part.strip())
