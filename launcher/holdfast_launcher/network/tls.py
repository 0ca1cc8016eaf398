"""The self-signed certificate of a listener off loopback: a launcher's, or a keeper's.

It knows X.509 and ssl; it must not know who listens. A peer trusts exactly one certificate, by
its SHA-256 fingerprint, so names, authorities and expiry mean nothing here: the fingerprint
travels by heartbeat and record. A launcher keeps its own over restarts; a keeper's lives as long
as the process, and its key is on disk no longer than ``ssl`` needs to load it. Rejected: a
private PKI (somebody has to run it).

``cryptography`` is imported when a certificate is made: on loopback nobody pays for it.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from holdfast_launcher.state.statefiles import write_private

_VALID = datetime.timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Identity:
    """What to serve with. ``fingerprint``: SHA-256 of the certificate (DER), hex."""

    context: ssl.SSLContext = field(compare=False, repr=False)
    fingerprint: str


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``. A name other than localhost counts as outside."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def obtain_identity(path: Path, *, name: str) -> Identity:
    """The identity in ``path``, made on the first call, so that a restart keeps its fingerprint."""
    try:
        pem = path.read_text(encoding="ascii")
    except FileNotFoundError:
        pem = _self_signed(name)
        write_private(path, pem.encode("ascii"), durable=True)
    return _identity(pem, path)


def make_identity(directory: Path, *, name: str) -> Identity:
    """A fresh identity that nobody keeps; ``directory`` must be private. Raises OSError."""
    pem = _self_signed(name)
    descriptor, path = tempfile.mkstemp(dir=directory)  # 0600 by mkstemp's own rule
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(pem)
        return _identity(pem, Path(path))
    finally:
        Path(path).unlink()


def _identity(pem: str, path: Path) -> Identity:
    """``path`` holds ``pem``: ``ssl`` loads a key from a file only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(path)
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE-----") :])
    return Identity(context, hashlib.sha256(der).hexdigest())


def _self_signed(name: str) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of two nodes differ
        .not_valid_after(now + _VALID)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode("ascii")
