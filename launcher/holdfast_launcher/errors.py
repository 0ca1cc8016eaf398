"""What a launcher answers when it cannot do what it was asked, as types with an HTTP status.

It knows the status and the machine word of docs/reference/wire.md and nothing else. "Not now" is
always 503: a proxy must be able to tell "try again" from "no" without reading the sentence.
"""

from __future__ import annotations

from typing import Any

from holdfast_protocol.fencing import Token


class LauncherError(Exception):
    """Base. ``message`` says what happened and what to do; it holds no secret."""

    status = 500
    reason = "internal"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason

    def body(self) -> dict[str, Any]:
        """The JSON answer."""
        return {"reason": self.reason, "message": self.message}


class ConfigError(LauncherError):
    """The configuration cannot be used; says which key."""

    reason = "config"


class BadRequest(LauncherError):
    status = 400
    reason = "bad_request"


class Unauthorized(LauncherError):
    status = 401
    reason = "unauthorized"


class Refused(LauncherError):
    """Understood and not allowed on this launcher."""

    status = 403
    reason = "refused"


class NoSuchKernel(LauncherError):
    status = 404
    reason = "no_such_kernel"


class UnknownKernelspec(LauncherError):
    status = 404
    reason = "unknown_kernelspec"


class NonceMismatch(LauncherError):
    """Another incarnation lives; the caller must end it first."""

    status = 409
    reason = "nonce_mismatch"


class StaleToken(LauncherError):
    """A higher fencing token was acknowledged: the caller's ownership is over."""

    status = 412
    reason = "stale_token"

    def __init__(self, message: str, *, highest: Token) -> None:
        super().__init__(message)
        self.highest = highest

    def body(self) -> dict[str, Any]:
        return {**super().body(), "fence": self.highest.as_list()}


class StartFailed(LauncherError):
    """The keeper did not come up; the message carries its last words."""

    status = 500
    reason = "start_failed"


class NotReady(LauncherError):
    """Not possible at this moment; the same call may succeed later."""

    status = 503
    reason = "not_ready"
