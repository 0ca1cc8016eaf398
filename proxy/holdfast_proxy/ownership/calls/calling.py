"""HTTP from this proxy to keepers, launchers and other proxies: one call, one typed outcome.

A caller must know whether a failed call may have acted, because without a request id it must not
be repeated (DESIGN section 3). So there are three outcomes: an ``Answer`` (whatever its status),
``NotSent`` (surely no effect; ``refused`` when the port answered with RST) and ``NoReply``
(perhaps an effect). Certificates are pinned by fingerprint, which aiohttp checks before a byte of
the request is written. Knows HTTP; must not know what is called.
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

#: No answer of ours is larger, kernelspec resources included.
_MAX_BODY = 16 * 1024 * 1024


class CallError(Exception):
    """A call had no answer."""


class NotSent(CallError):
    """Nothing reached the peer."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class NoReply(CallError):
    """The request may have been handled; its answer did not come."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the peer said. ``document`` is its JSON object, empty for anything else."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def document(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def reason(self) -> str:
        return str(self.document.get("reason") or "")

    @property
    def message(self) -> str:
        return str(self.document.get("message") or f"HTTP status {self.status}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to call. ``fingerprint``: SHA-256 hex of the certificate to expect; None with https
    means the usual verification."""

    url: str
    bearer: str | None = field(default=None, repr=False)
    fingerprint: str | None = None


class Caller:
    """Two connection pools: a kept-alive one for reads, and fresh connections for what acts.

    A kept-alive connection that the peer has just closed fails only after the request was
    written, which for a call that must not be repeated is one ambiguity too many.
    """

    def __init__(self) -> None:
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Caller {'closed' if self._closed else 'open'}>"

    async def call(
        self,
        method: str,
        target: Target,
        path: str,
        *,
        timeout: float,
        headers: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
        acts: bool = False,
    ) -> Answer:
        """One request, no redirect, no repetition. ``timeout``: seconds for all of it;
        ``headers``: a name may come several times.

        Raises NotSent, NoReply.
        """
        if self._closed:
            raise NotSent("this proxy is ending")
        sent_headers = list(headers)
        if target.bearer is not None:
            sent_headers.append(("Authorization", f"Bearer {target.bearer}"))
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 2.0))
        try:
            async with self._session(fresh=acts).request(
                method,
                URL(target.url + path, encoded=True),
                headers=sent_headers,
                json=body,
                timeout=limit,
                allow_redirects=False,
                ssl=_verification(target),
            ) as response:
                return Answer(response.status, response.headers, await _body(response))
        except (aiohttp.ClientConnectorError, aiohttp.ServerFingerprintMismatch) as error:
            raise NotSent(str(error), refused=_is_refusal(error)) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise NotSent(f"no connection within {limit.sock_connect} s") from error
        except (aiohttp.InvalidURL, ValueError) as error:
            raise NotSent(f"not an address: {error}") from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise NoReply(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Idempotent; calls after it raise NotSent."""
        self._closed = True
        sessions = [item for item in (self._pooled, self._fresh) if item is not None]
        self._pooled = self._fresh = None
        await asyncio.gather(*(session.close() for session in sessions))

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        if fresh:
            self._fresh = self._fresh or _new_session(force_close=True)
            return self._fresh
        self._pooled = self._pooled or _new_session(force_close=False)
        return self._pooled


async def _body(response: aiohttp.ClientResponse) -> bytes:
    data = await response.content.read(_MAX_BODY)
    while not response.content.at_eof() and len(data) < _MAX_BODY:
        data += await response.content.read(_MAX_BODY - len(data))
    return data


def _new_session(*, force_close: bool) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, force_close=force_close)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )


def _verification(target: Target) -> aiohttp.Fingerprint | bool:
    if target.fingerprint is None:
        return True
    return aiohttp.Fingerprint(bytes.fromhex(target.fingerprint))


def _is_refusal(error: Exception) -> bool:
    inner = getattr(error, "os_error", None)
    return isinstance(inner, OSError) and inner.errno == errno.ECONNREFUSED
