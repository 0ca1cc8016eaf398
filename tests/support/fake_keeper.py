"""Keepers that speak just what a proxy sees of one: the upgrade, and ``/v1/drain``.

``RawKeeper`` has a byte stream behind its 101, ``WebsocketKeeper`` real websockets.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast_proxy.cluster import KeeperEndpoint

CREDENTIAL = "keeper-credential"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass
class Certificate:
    """A self-signed certificate: what a keeper serves, and what its record says of it."""

    context: ssl.SSLContext
    fingerprint: str
    cert_file: Path
    key_file: Path

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "holdfast-keeper")])
        now = datetime.now(UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        cert_file, key_file = folder / "cert.pem", folder / "key.pem"
        cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        key_file.touch(mode=0o600)
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert_file, key_file)
        fingerprint = hashlib.sha256(cert.public_bytes(serialization.Encoding.DER)).hexdigest()
        return cls(context, fingerprint, cert_file, key_file)


@dataclass
class Channel:
    """One upgraded connection at a RawKeeper."""

    target: str
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def abort(self) -> None:
        self.writer.transport.abort()


@dataclass
class RawKeeper:
    """After the 101 the bytes are the test's. ``status`` other than 101 refuses; ``tail`` is
    written in one piece with the 101; ``mute`` never answers; ``extra`` adds answer headers."""

    kernel_id: str = "11111111-1111-4111-8111-111111111111"
    certificate: Certificate | None = None
    status: int = 101
    subprotocol: str | None = "first"
    tail: bytes = b""
    mute: bool = False
    accept: str | None = None
    extra: str = ""
    connections: int = 0
    first_bytes: list[bytes] = field(default_factory=list)
    channels: asyncio.Queue[Channel] = field(default_factory=asyncio.Queue)
    _server: asyncio.Server | None = None
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        context = None if self.certificate is None else self.certificate.context
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    @property
    def endpoint(self) -> KeeperEndpoint:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        fingerprint = None if self.certificate is None else self.certificate.fingerprint
        return KeeperEndpoint(self.kernel_id, "127.0.0.1", port, fingerprint, CREDENTIAL)

    async def next_channel(self) -> Channel:
        async with asyncio.timeout(10):
            return await self.channels.get()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.first_bytes.append(getattr(error, "partial", b""))
            return
        self.first_bytes.append(head)
        if self.mute:
            return
        request_line, *lines = head.decode().rstrip("\r\n").split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
        target = request_line.split(" ")[1]
        writer.write(self._answer(headers) + self.tail)
        if self.status == 101:
            self.channels.put_nowait(Channel(target, headers, reader, writer))

    def _answer(self, headers: dict[str, str]) -> bytes:
        if self.status != 101:
            return f"HTTP/1.1 {self.status} No\r\nContent-Length: 0\r\n{self.extra}\r\n".encode()
        digest = hashlib.sha1(headers["sec-websocket-key"].encode() + _GUID).digest()  # noqa: S324
        accept = self.accept or base64.b64encode(digest).decode()
        offered = headers.get("sec-websocket-protocol", "").split(", ")[0]
        chosen = offered if self.subprotocol == "first" else self.subprotocol
        protocol = f"Sec-WebSocket-Protocol: {chosen}\r\n" if chosen else ""
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{protocol}{self.extra}\r\n"
        ).encode()


@dataclass
class WebsocketKeeper:
    """Real websockets: echoes each message, remembers it, and says 1012 when drained."""

    kernel_id: str = "11111111-1111-4111-8111-111111111111"
    certificate: Certificate | None = None
    received: list[str | bytes] = field(default_factory=list)
    drains: list[dict[str, Any]] = field(default_factory=list)
    upgrades: list[dict[str, str]] = field(default_factory=list)
    sessions: list[str | None] = field(default_factory=list)
    sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    deaf_to_drain: bool = False
    _transports: list[asyncio.Transport] = field(default_factory=list)
    _runner: web.AppRunner | None = None
    _port: int = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/v1/channels", self._channels)
        app.router.add_post("/v1/drain", self._drain)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        context = None if self.certificate is None else self.certificate.context
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def endpoint(self) -> KeeperEndpoint:
        fingerprint = None if self.certificate is None else self.certificate.fingerprint
        return KeeperEndpoint(self.kernel_id, "127.0.0.1", self._port, fingerprint, CREDENTIAL)

    def abort_all(self) -> None:
        """Die as by a signal: every connection breaks off."""
        for transport in self._transports:
            transport.abort()

    async def _channels(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {CREDENTIAL}":
            raise web.HTTPUnauthorized
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        socket = web.WebSocketResponse(
            protocols=[name.strip() for name in offered.split(",") if name.strip()],
            max_msg_size=0,
        )
        await socket.prepare(request)
        assert request.transport is not None
        self._transports.append(request.transport)
        self.upgrades.append(dict(request.headers))
        self.sessions.append(request.query.get("session_id"))
        self.sockets[request.headers["Holdfast-Tunnel"]] = socket
        async for message in socket:
            self.received.append(message.data)
            if isinstance(message.data, str):
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        return socket

    async def _drain(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {CREDENTIAL}":
            raise web.HTTPUnauthorized
        body = await request.json()
        self.drains.append(body)
        if self.deaf_to_drain:
            await asyncio.Event().wait()
        for tunnel in body["tunnels"]:
            # Between frames, and without waiting for the client's own close.
            await self.sockets[tunnel].close(code=1012, message=b"drain", drain=False)
        return web.json_response({})
