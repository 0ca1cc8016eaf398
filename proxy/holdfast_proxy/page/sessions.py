"""Session cookies of the cluster page: made and checked without a store. Pure.

A browser cannot send an Authorization header with a page or an EventSource, and a token in a URL
ends up in histories and logs. So the page has a cookie, ``<expiry>.<user>.<mac>``. The MAC's key
comes from the cluster key, so every proxy of the cluster accepts what one of them made, and none
of another cluster does. It covers the digest of the user's token: a token that is changed or
taken away ends the sessions that it opened. The cookie is not the token and says nothing of it.

Must not know HTTP, the clock or where tokens come from. Rejected: sessions kept in memory (they
would die with the proxy, which is when the page is needed), or in etcd (the page must work while
etcd is away); a random value in the cookie (nothing would ever look at it).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: How long a session lasts, in seconds.
LIFETIME: Final = 12 * 3600
#: The longest cookie that we look at: a name has at most 128 characters of at most four bytes.
_MAX_LENGTH: Final = 1024
_EXPIRY: Final = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """Who is signed in, and until when (seconds since 1970)."""

    user: str
    expires: float


class Sessions:
    """Makes and checks the cookies of one cluster."""

    def __init__(self, *, key: bytes, cluster: str, tokens: Mapping[str, str]) -> None:
        """``key``: the cluster key, or random bytes when there is none (then only this process
        accepts what it made). ``tokens``: user → token; only digests are kept.
        """
        label = f"holdfast page session 1\0{cluster}".encode()
        self._key = hmac.digest(key, label, "sha256")
        self._digests = {
            user: hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
            for user, token in tokens.items()
        }
        #: Cookies know no ports: two clusters on one host must not take each other's.
        self.cookie_name = f"holdfast-page-{hashlib.sha256(label).hexdigest()[:8]}"

    def __repr__(self) -> str:
        return f"<Sessions of {len(self._digests)} users>"

    def issue(self, user: str, *, now: float) -> str:
        """A cookie for ``user`` from ``now`` on. Raises KeyError for a user without a token."""
        expires = str(math.floor(now) + LIFETIME)
        return self._signed(expires, user, self._digests[user])

    def check(self, cookie: str | None, *, now: float) -> Session | None:
        """Whose cookie this is; None for anything that is not a valid one at ``now``."""
        if cookie is None or len(cookie) > _MAX_LENGTH or not cookie.isascii():
            return None
        expires, _, rest = cookie.partition(".")
        name, _, _ = rest.partition(".")
        user = _decoded(name)
        if user is None or _EXPIRY.fullmatch(expires) is None:
            return None
        digest = self._digests.get(user)
        # Somebody unknown takes as long as somebody known.
        expected = self._signed(expires, user, digest or b"")
        if not hmac.compare_digest(expected.encode(), cookie.encode()) or digest is None:
            return None
        return Session(user, float(expires)) if now < float(expires) else None

    def _signed(self, expires: str, user: str, digest: bytes) -> str:
        text = f"{expires}.{_encoded(user.encode())}"
        # None of the parts can hold the separator, so no two triples give one message.
        mac = hmac.digest(self._key, text.encode() + b"." + digest.hex().encode(), "sha256")
        return f"{text}.{_encoded(mac)}"


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decoded(text: str) -> str | None:
    try:
        padded = text + "=" * (-len(text) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
