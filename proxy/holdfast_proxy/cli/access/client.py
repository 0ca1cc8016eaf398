"""HTTP to the proxies of one cluster: the first that answers, and the next when one does not.

On the standard library's ``http.client``, because a command should answer at once and aiohttp's
import alone takes longer than the answer. Every call has a deadline; redirects are not followed,
so that the token goes nowhere else.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .exits import NotNamed, Refused, Unreachable
from .site import Site

#: Seconds for a connection and for each read.
TIMEOUT = 5.0
_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Silent:
    """A proxy that did not answer, and why."""

    url: str
    why: str


@dataclass(slots=True)
class Client:
    """Asks the proxies of ``site``. ``silent``: those that did not answer the last call."""

    site: Site
    timeout: float = TIMEOUT
    silent: list[Silent] = field(default_factory=list)
    _first: str | None = None

    def get(self, path: str) -> Any:
        """The JSON answer of the first proxy that answers. Raises Unreachable, Refused."""
        return self.call("GET", path)

    def call(self, method: str, path: str) -> Any:
        with self._open(method, path, whole=True) as (_, data):
            return _json(data)

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """The lines of an answer, as they come. Raises Unreachable, Refused."""
        with self._open("GET", path) as (response, _):
            yield _lines(response)

    def call_one(self, url: str, path: str, *, method: str = "GET", anonymous: bool = False) -> Any:
        """Ask exactly this proxy. Raises Unreachable, Refused."""
        with _request(self._link(url), method, url, path, self._token(anonymous)) as response:
            return _json(_whole(response))

    @contextmanager
    def _open(
        self, method: str, path: str, *, whole: bool = False
    ) -> Iterator[tuple[http.client.HTTPResponse, bytes]]:
        """``whole``: its body, too, so that the next is asked when one dies while it answers."""
        self.silent = []
        refused: Refused | None = None
        for url in self._order():
            with ExitStack() as exchange:
                try:
                    response = exchange.enter_context(
                        _request(self._link(url), method, url, path, self._token(False))
                    )
                    data = _whole(response) if whole else b""
                except Unreachable as error:
                    self.silent.append(Silent(url, error.message))
                    continue
                except Refused as error:
                    if error.status != 503:
                        raise
                    refused = error  # this one drains or has no part in it; another one may
                    continue
                self._first = url
                yield response, data
                return
        if refused is not None:
            raise refused
        raise Unreachable(_nobody(self.silent))

    def _order(self) -> list[str]:
        first = [] if self._first is None else [self._first]
        return list(dict.fromkeys([*first, *self.site.urls]))

    def _token(self, anonymous: bool) -> str | None:
        return None if anonymous else self.site.token

    def _link(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.timeout)
        try:
            context = ssl.create_default_context(
                cafile=None if self.site.ca_file is None else str(self.site.ca_file)
            )
        except OSError as error:
            raise NotNamed(f"{self.site.ca_file} cannot be used: {error}") from error
        return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context)


@contextmanager
def _request(
    link: http.client.HTTPConnection, method: str, url: str, path: str, token: str | None
) -> Iterator[http.client.HTTPResponse]:
    headers = {"Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        try:
            link.request(method, urlsplit(url).path.rstrip("/") + path, headers=headers)
            response = link.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"its certificate is not trusted ({error.verify_message}); "
                "name the authority by --ca-file"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(_why(error)) from error
        if response.status >= 300:
            raise _refusal(response)
        yield response
    finally:
        link.close()


def _refusal(response: http.client.HTTPResponse) -> Refused:
    try:
        document = json.loads(response.read(65_536))
    except (OSError, ValueError, http.client.HTTPException):
        document = {}
    if not isinstance(document, dict):
        document = {}
    message = str(document.get("message") or f"the proxy answered {response.status}")
    if response.status == 401:
        message = (
            "the proxy does not know this token: give the right one by --token-file or "
            "HOLDFAST_TOKEN"
        )
    reason = str(document.get("reason") or "")
    return Refused(message, status=response.status, reason=reason)


def _whole(response: http.client.HTTPResponse) -> bytes:
    """Raises Unreachable when it breaks off."""
    try:
        return response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the answer broke off: {_why(error)}") from error


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Raises Unreachable when it breaks off. ``readline`` would not: it takes that for the end."""
    rest = b""
    try:
        while piece := response.read(_PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line + b"\n" for line in lines)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the answer broke off: {_why(error)}") from error
    if response.length:
        raise Unreachable(f"the answer broke off: {response.length} bytes are missing")
    if rest:
        yield rest


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise Refused(f"that is no answer of a Holdfast proxy: {error}", status=200) from error


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _nobody(silent: list[Silent]) -> str:
    told = "; ".join(f"{item.url}: {item.why}" for item in silent)
    return f"no proxy answers ({told})"
