"""Reaching a keeper: connect, check its certificate, and ask it to upgrade.

Knows sockets and TLS; must not know the client or what the tunnel will carry. The order is a
safety rule: *nothing is written before the certificate's fingerprint has been compared with the
record's*, so that the keeper's credential is never told to somebody who merely sits on its port;
plain TCP is used on loopback only, where the port's owner is this machine. Rejected: an HTTP
client library for the upgrade (it parses frames that the tunnel must not touch).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from ...cluster import KeeperEndpoint
from ...config import is_loopback
from .handshake import (
    AnswerReader,
    ClientUpgrade,
    HandshakeError,
    KeeperAnswer,
    check_answer,
    keeper_request,
)

CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 5.0
#: How long sent bytes may stay unacknowledged before the kernel gives a connection up. Above
#: any pause of a slow but living reader that we want to sit out; both ends ping by themselves.
_USER_TIMEOUT_MS: Final = 30_000
#: After so long without a byte the kernel asks the peer's kernel, and as often again.
_KEEPALIVE_SECONDS: Final = 10


class DialError(Exception):
    """No tunnel: the message says why, without any secret."""


class KeeperUnreachable(DialError):
    """Nobody answers at the endpoint, or not the one whose certificate is recorded."""


class KeeperRefused(DialError):
    """The keeper answered something else than 101."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"the keeper answered {status} to the upgrade")
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class KeeperConnection:
    """An upgraded connection, paused for reading; ``tail`` came after the head."""

    transport: asyncio.Transport
    subprotocol: str | None
    tail: bytes


def check_endpoint(endpoint: KeeperEndpoint) -> None:
    """Refuse plain TCP to another machine. Raises KeeperUnreachable."""
    if endpoint.fingerprint is None and not is_loopback(endpoint.host):
        raise KeeperUnreachable(
            f"{endpoint.host}:{endpoint.port} is not on loopback and has no certificate on record"
        )


async def connect(
    endpoint: KeeperEndpoint, protocol: asyncio.BaseProtocol, *, timeout: float = CONNECT_SECONDS
) -> asyncio.Transport:
    """Connect to the keeper and prove that it is it. Raises KeeperUnreachable."""
    check_endpoint(endpoint)
    context = None if endpoint.fingerprint is None else _unverified_context()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            transport, _ = await loop.create_connection(
                lambda: protocol, endpoint.host, endpoint.port, ssl=context
            )
    except TimeoutError:
        raise KeeperUnreachable(
            f"no connection to {endpoint.host}:{endpoint.port} within {timeout:g} s"
        ) from None
    except OSError as error:  # ssl.SSLError is one
        raise KeeperUnreachable(
            f"cannot connect to {endpoint.host}:{endpoint.port}: {error}"
        ) from error
    if endpoint.fingerprint is not None and not _fingerprint_matches(
        transport, endpoint.fingerprint
    ):
        transport.abort()
        raise KeeperUnreachable(
            f"the certificate at {endpoint.host}:{endpoint.port} is not the recorded one"
        )
    tune(transport)
    return transport


async def dial(
    endpoint: KeeperEndpoint,
    upgrade: ClientUpgrade,
    *,
    tunnel_id: str,
    user: str,
    grants: str,
    answer_timeout: float = ANSWER_SECONDS,
) -> KeeperConnection:
    """Connect and upgrade. Raises KeeperUnreachable, KeeperRefused."""
    key = base64.b64encode(os.urandom(16)).decode()
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    request = keeper_request(
        upgrade,
        key=key,
        authority=f"{host}:{endpoint.port}",
        credential=endpoint.credential,
        tunnel_id=tunnel_id,
        user=user,
        grants=grants,
    )
    protocol = _UpgradeProtocol()
    transport = await connect(endpoint, protocol)
    try:
        transport.write(request)
        answer = await _answer(protocol, answer_timeout)
        check_answer(answer, key=key, offered=upgrade.subprotocols)
    except HandshakeError as error:
        transport.abort()
        raise KeeperUnreachable(str(error)) from error
    except BaseException:
        transport.abort()
        raise
    return KeeperConnection(transport, answer.subprotocol, protocol.tail)


async def _answer(protocol: _UpgradeProtocol, timeout: float) -> KeeperAnswer:
    try:
        async with asyncio.timeout(timeout):
            answer = await protocol.answer
    except TimeoutError:
        raise KeeperUnreachable(
            f"the keeper did not answer the upgrade within {timeout:g} s"
        ) from None
    if answer.status != 101:
        raise KeeperRefused(answer.status, _seconds(answer.headers.get("retry-after")))
    return answer


class HasSocket(Protocol):
    """A transport, or aiohttp's websocket over one."""

    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


def tune(transport: HasSocket) -> None:
    """No Nagle (it cost peers 44 ms a round trip), and a dead peer is noticed by the kernel, also
    by a leg on which nothing is sent: by itself TCP would ask after two hours."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS)


class _UpgradeProtocol(asyncio.Protocol):
    """Reads the answer's head, then pauses reading until the tunnel takes the transport."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[KeeperAnswer] = asyncio.get_running_loop().create_future()
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._late = bytearray()

    @property
    def tail(self) -> bytes:
        return self._reader.tail + bytes(self._late)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            self._late += data  # TLS may hand over what it had decrypted before the pause
            return
        try:
            answer = self._reader.feed(data)
        except HandshakeError as error:
            self.answer.set_exception(error)
            return
        if answer is not None:
            self.answer.set_result(answer)
            if self._transport is not None:
                self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(
                HandshakeError(f"the keeper closed the connection: {exc or 'end of stream'}")
            )
            self.answer.exception()  # seen: the dialler may have timed out already


def _unverified_context() -> ssl.SSLContext:
    # The fingerprint proves the peer; a chain of authorities would prove less.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _fingerprint_matches(transport: asyncio.Transport, fingerprint: str) -> bool:
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    if not certificate:
        return False
    found = hashlib.sha256(certificate).hexdigest()
    return hmac.compare_digest(found, fingerprint.replace(":", "").lower())


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdecimal() else None
