"""TLS client certificates and password authentication against real etcd."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast_proxy.store.calls import Login
from holdfast_proxy.store.contract import ModEquals, Put
from holdfast_proxy.store.endpoints import TlsFiles
from holdfast_proxy.store.errors import AuthenticationFailed, Misuse, Rejected, Unreachable
from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore
from holdfast_proxy.store.stubs import load_messages
from support.etcd_server import EtcdCluster, ServerTls

from .conftest import QUICK, healthy


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.file = directory / "ca.pem"
        certificate = self._build(self._name, self._key.public_key(), authority=True)
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, common_name: str) -> tuple[Path, Path]:
        """(certificate, key) for both server and client use at 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = self._build(name, key.public_key(), authority=False)
        cert_file = self._directory / f"{common_name}.pem"
        key_file = self._directory / f"{common_name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert_file, key_file

    def _build(self, name: x509.Name, key: Any, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        return builder.sign(self._key, hashes.SHA256())


async def set_up_users(channel: grpc.aio.Channel) -> None:
    """root, and ``holdfast`` who may use ``/holdfast/``; then authentication is switched on."""
    messages = load_messages()

    async def call(method: str, **fields: Any) -> None:
        request = getattr(messages, f"Auth{method}Request")(**fields)
        answer = getattr(messages, f"Auth{method}Response")
        await channel.unary_unary(
            f"/etcdserverpb.Auth/{method.removeprefix('Auth')}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )(request, timeout=10)

    await call("UserAdd", name="root", password="root-secret")
    await call("RoleAdd", name="root")
    await call("UserGrantRole", user="root", role="root")
    await call("UserAdd", name="holdfast", password="secret")
    await call("RoleAdd", name="holdfast")
    permission = messages.Permission(permType=2, key=b"/holdfast/", range_end=b"/holdfast0")
    await call("RoleGrantPermission", name="holdfast", perm=permission)
    await call("UserGrantRole", user="holdfast", role="holdfast")
    request = messages.AuthEnableRequest()
    await channel.unary_unary(
        "/etcdserverpb.Auth/AuthEnable",
        request_serializer=messages.AuthEnableRequest.SerializeToString,
        response_deserializer=messages.AuthEnableResponse.FromString,
    )(request, timeout=10)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secured(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[EtcdCluster]:
    """TLS, client certificates wanted, users named by their CN."""
    cert, key = authority.issue("server")
    tls = ServerTls(ca=authority.file, cert=cert, key=key)
    with EtcdCluster(tmp_path_factory.mktemp("tls"), tls=tls, arguments=QUICK) as etcd:
        etcd.wait_ready()
        credentials = tls_files(authority, "root").credentials()

        async def prepare() -> None:
            target = etcd.endpoints[0].removeprefix("https://")
            async with grpc.aio.secure_channel(target, credentials) as channel:
                await set_up_users(channel)

        asyncio.run(prepare())
        yield etcd


@pytest.fixture(scope="module")
def with_passwords(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """Plain TCP, users with passwords."""
    with EtcdCluster(tmp_path_factory.mktemp("passwords"), arguments=QUICK) as etcd:
        etcd.wait_ready()

        async def prepare() -> None:
            target = etcd.endpoints[0].removeprefix("http://")
            async with grpc.aio.insecure_channel(target) as channel:
                await set_up_users(channel)

        asyncio.run(prepare())
        yield etcd


def tls_files(authority: Authority, user: str) -> TlsFiles:
    cert, key = authority.issue(user)
    return TlsFiles(ca=authority.file, cert=cert, key=key)


def password_config(etcd: EtcdCluster, user: str, password: str) -> EtcdConfig:
    return EtcdConfig(endpoints=etcd.endpoints, login=Login(user, password), timeout=10)


async def use(store: EtcdStore) -> None:
    """All kinds of calls within what ``holdfast`` may."""
    key = "/holdfast/a"
    lease = await store.lease_grant(30)
    snapshot = await store.range("/holdfast/")
    async with store.watch("/holdfast/", start_revision=snapshot.revision + 1) as watch:
        kv = await store.get(key)
        result = await store.txn(
            [ModEquals(key, kv.mod_revision if kv else 0)], [Put(key, b"1", lease)]
        )
        assert result.succeeded
        async with asyncio.timeout(20):
            assert (await anext(watch)).revision == result.revision
    assert await store.lease_keepalive(lease) == 30
    await store.lease_revoke(lease)


async def test_a_client_certificate_names_the_user(
    secured: EtcdCluster, authority: Authority
) -> None:
    config = EtcdConfig(endpoints=secured.endpoints, tls=tls_files(authority, "holdfast"))
    async with EtcdStore(config) as store:
        await use(store)
        assert (await store.status()).version
        with pytest.raises(Rejected):
            await store.get("/other/a")
        with pytest.raises(Rejected):
            await store.txn([ModEquals("/other/a", 0)], [Put("/other/a", b"")])
        async with store.watch("/other/", start_revision=1) as watch:
            with pytest.raises(Rejected):
                async with asyncio.timeout(20):
                    await anext(watch)


async def test_a_client_that_the_authority_does_not_know_stays_outside(
    secured: EtcdCluster, authority: Authority, tmp_path: Path
) -> None:
    stranger = tls_files(Authority(tmp_path), "holdfast")
    config = EtcdConfig(
        endpoints=secured.endpoints,
        tls=TlsFiles(ca=authority.file, cert=stranger.cert, key=stranger.key),
        timeout=0.6,
    )
    async with EtcdStore(config) as store:
        with pytest.raises(Unreachable):
            await store.txn([ModEquals("/holdfast/s", 0)], [Put("/holdfast/s", b"")])
    distrusting = EtcdConfig(endpoints=secured.endpoints, tls=stranger, timeout=0.6)
    async with EtcdStore(distrusting) as store:
        with pytest.raises(Unreachable):
            await store.get("/holdfast/s")


async def test_a_password_is_enough_where_etcd_asks_for_one(with_passwords: EtcdCluster) -> None:
    async with EtcdStore(password_config(with_passwords, "holdfast", "secret")) as store:
        await use(store)
        with pytest.raises(Rejected):
            await store.get("/other/a")
        with pytest.raises(Rejected):
            await store.txn([ModEquals("/other/a", 0)], [Put("/other/a", b"")])


@pytest.mark.parametrize(
    ("user", "password"), [("holdfast", "wrong"), ("nobody", "secret")], ids=["password", "user"]
)
async def test_a_wrong_login_is_said(with_passwords: EtcdCluster, user: str, password: str) -> None:
    async with EtcdStore(password_config(with_passwords, user, password)) as store:
        with pytest.raises(AuthenticationFailed):
            await store.get("/holdfast/a")
        async with store.watch("/holdfast/", start_revision=1) as watch:
            with pytest.raises(AuthenticationFailed):
                async with asyncio.timeout(20):
                    await anext(watch)


async def test_no_login_at_all_is_said(with_passwords: EtcdCluster) -> None:
    async with EtcdStore(EtcdConfig(endpoints=with_passwords.endpoints)) as store:
        with pytest.raises(AuthenticationFailed):
            await store.get("/holdfast/a")
        with pytest.raises(AuthenticationFailed):
            await store.txn([ModEquals("/holdfast/a", 0)], [Put("/holdfast/a", b"")])


async def test_a_token_that_expired_is_renewed_in_passing(with_passwords: EtcdCluster) -> None:
    """A restarted member has forgotten its tokens."""
    async with EtcdStore(password_config(with_passwords, "holdfast", "secret")) as store:
        snapshot = await store.range("/holdfast/")
        async with store.watch("/holdfast/", start_revision=snapshot.revision + 1) as watch:
            await store.get("/holdfast/r")
            with_passwords.members[0].kill()
            with_passwords.members[0].start()
            await healthy(with_passwords)
            results = await asyncio.gather(
                *(
                    store.txn([ModEquals(f"/holdfast/{n}", 0)], [Put(f"/holdfast/{n}", b"")])
                    for n in range(5)
                )
            )
            assert all(result.succeeded for result in results)
            seen = 0
            async with asyncio.timeout(20):
                while seen < 5:
                    seen += len((await anext(watch)).events)
        assert seen == 5
        await use(store)


def test_tls_settings_that_cannot_work_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="both"):
        EtcdStore(EtcdConfig(endpoints=("https://a:1",), tls=TlsFiles(cert=tmp_path / "c")))
    with pytest.raises(Misuse, match="cannot read"):
        EtcdStore(EtcdConfig(endpoints=("https://a:1",), tls=TlsFiles(ca=tmp_path / "none")))
    with pytest.raises(Misuse, match="https"):
        EtcdStore(EtcdConfig(endpoints=("http://a:1",), tls=TlsFiles()))


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(EtcdConfig(endpoints=("a:1",), login=Login("u", "secret")))
