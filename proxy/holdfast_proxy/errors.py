"""What can go wrong for somebody who asks the proxy for something, as types.

Each carries the HTTP status that Jupyter clients react to rightly (DESIGN promise 6):
404 only when the record is proven gone, 503 with Retry-After for "known, not reachable now",
never 500, 502 or 504 for a kernel that may live.
"""

from __future__ import annotations


class ProxyError(Exception):
    """Base. ``message`` is for the person who asked; it says what to do."""

    status: int = 500
    retry_after: float | None = None

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class BadRequest(ProxyError):
    status = 400


class Unauthorized(ProxyError):
    status = 401


class Forbidden(ProxyError):
    status = 403


class NotFound(ProxyError):
    """Proven absent by a linearizable read, or another user's: the two look the same."""

    status = 404


class Conflict(ProxyError):
    status = 409


class StaleToken(Conflict):
    """A keeper or launcher has acknowledged a higher fencing token than ours."""


class Gone(ProxyError):
    """It was there, and is not any more (RFC 9110, 15.5.11). Never for a kernel's own model."""

    status = 410


class Misdirected(ProxyError):
    """A forwarded request reached a proxy that does not own the kernel (RFC 9110, 15.5.20)."""

    status = 421

    def __init__(self, message: str, *, owner: str | None) -> None:
        super().__init__(message)
        self.owner = owner


class Unavailable(ProxyError):
    """Known but not possible now; ``retry_after`` in seconds."""

    status = 503

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StartFailed(ProxyError):
    """The kernel could not be started; the message carries its own last words."""

    status = 500
