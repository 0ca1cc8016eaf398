"""From endpoints to an open websocket: who is asked, who wins, what TLS lets pass."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast_client_shim.gateway.dialer import Dialer
from holdfast_client_shim.gateway.endpoints import Endpoint, EndpointPool
from holdfast_client_shim.gateway.upstream import DialFailed, Loss, Target, Upstream
from holdfast_protocol.frames import STREAM_SUBPROTOCOL, Resume, Resumed, decode
from support.fake_stream_keeper import FakeGateway, FakeKernel


class Ear:
    """A receiver that keeps what comes."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.loss: asyncio.Future[Loss] = asyncio.get_running_loop().create_future()

    def message_received(self, payload: memoryview, *, text: bool) -> None:
        self.frames.put_nowait(bytes(payload))

    def connection_gone(self, loss: Loss) -> None:
        self.loss.set_result(loss)

    def may_write(self) -> None: ...


@pytest.fixture
async def gateways() -> AsyncIterator[list[FakeGateway]]:
    kernels = {"k": FakeKernel("k")}
    made = [await FakeGateway(kernels).start() for _ in range(2)]
    yield made
    for gateway in made:
        await gateway.kill()


def dialer(
    gateways: list[FakeGateway], context: ssl.SSLContext | None = None
) -> tuple[Dialer, EndpointPool]:
    pool = EndpointPool([Endpoint.of(gateway.url) for gateway in gateways])

    def target(endpoint: Endpoint, kernel_id: str, session_id: str) -> Target:
        url = f"{endpoint.ws_url}/api/kernels/{kernel_id}/channels?session_id={session_id}"
        return Target(url, {"Authorization": "token t"}, (STREAM_SUBPROTOCOL,), context)

    return Dialer(pool, target), pool


async def resume(upstream: Upstream) -> Resumed:
    ear = Ear()
    upstream.begin(ear)
    upstream.send(Resume(b"c" * 16, 1).encode())
    async with asyncio.timeout(5):
        frame = decode(await ear.frames.get())
    assert isinstance(frame, Resumed)
    return frame


async def test_the_preferred_one_is_asked_alone(gateways: list[FakeGateway]) -> None:
    made, pool = dialer(gateways)
    endpoint, upstream = await made.connect("k", "s")
    assert endpoint == pool.endpoints[0]
    assert upstream.subprotocol == STREAM_SUBPROTOCOL
    await resume(upstream)
    assert [gateway.upgrades for gateway in gateways] == [1, 0]
    assert pool.is_holdfast
    assert gateways[0].authorizations == {"token t"}
    upstream.abandon()


async def test_a_frozen_one_gets_company_and_loses(gateways: list[FakeGateway]) -> None:
    gateways[0].freeze()
    made, pool = dialer(gateways)
    async with asyncio.timeout(2):
        endpoint, upstream = await made.connect("k", "s")
    assert endpoint == pool.endpoints[1]
    assert pool.preferred == endpoint
    await resume(upstream)
    upstream.abandon()
    gateways[0].thaw()


@pytest.mark.parametrize(
    ("answers", "status", "wait"),
    [
        ([(404, {}), (404, {})], 404, None),
        ([(404, {}), (503, {"Retry-After": "3"})], 503, 3.0),
        ([(503, {"Retry-After": "3"}), (503, {"Retry-After": "1"})], 503, 1.0),
        ([(503, {"Retry-After": "Mon, 23 Nov 2026 00:00:00 GMT"}), (401, {})], 503, None),
        ([None, (404, {})], None, None),
    ],
)
async def test_refusals_are_summed_up(
    gateways: list[FakeGateway],
    answers: list[tuple[int, dict[str, str]] | None],
    status: int | None,
    wait: float | None,
) -> None:
    """404 is the last word only when everybody says it."""
    for gateway, answer in zip(gateways, answers, strict=True):
        gateway.answer = answer
        if answer is None:
            await gateway.kill()
    made, _ = dialer(gateways)
    with pytest.raises(DialFailed) as raised:
        await made.connect("k", "s")
    assert (raised.value.status, raised.value.retry_after) == (status, wait)


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1: its file, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path, key_path = folder / "cert.pem", folder / "key.pem"
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return path, context


async def test_tls_is_verified(tmp_path: Path) -> None:
    path, tls = certificate(tmp_path)
    kernel = FakeKernel("k")
    gateway = FakeGateway({"k": kernel})
    gateway.tls = tls
    await gateway.start()
    try:
        made, _ = dialer([gateway], ssl.create_default_context())
        with pytest.raises(DialFailed, match="certificate verify failed"):
            await made.connect("k", "s")
        assert not gateway.upgrades, "no token went out"
        made, _ = dialer([gateway], ssl.create_default_context(cafile=str(path)))
        _, upstream = await made.connect("k", "s")
        ear = Ear()
        upstream.begin(ear)
        upstream.send(Resume(b"c" * 16, 1).encode())
        async with asyncio.timeout(10):
            await ear.frames.get()
            kernel.publish("display_data", {}, buffers=(b"x" * 3_000_000,))
            got = 0
            while got < 3_000_000:
                got += len(await ear.frames.get())
        gateway.abort_all()
        assert (await asyncio.wait_for(ear.loss, 5)).code is None
    finally:
        await gateway.kill()
