"""The self-signed certificate of a listener off loopback, and the contexts that pin it.

It knows X.509 and ssl; it must not know who listens. A peer trusts exactly one certificate, by
its SHA-256 fingerprint, so names, authorities and expiry mean nothing here: the fingerprint
travels by heartbeat and record. Rejected: a private PKI (somebody has to run it).

``cryptography`` is imported when a certificate is made: on loopback nobody pays for it.
"""

from __future__ import annotations

import datetime
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from holdfast_launcher.statefiles import write_private

_VALID = datetime.timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key in one 0600 PEM file. ``fingerprint``: SHA-256 of DER, hex."""

    path: Path
    fingerprint: str

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.path)
        return context


def obtain_identity(path: Path, *, name: str) -> Identity:
    """The identity in ``path``, made on the first call, so that a restart keeps its fingerprint."""
    try:
        pem = path.read_text(encoding="ascii")
    except FileNotFoundError:
        pem = _self_signed(name)
        write_private(path, pem.encode("ascii"), durable=True)
    begin = pem.index("-----BEGIN CERTIFICATE-----")
    der = ssl.PEM_cert_to_DER_cert(pem[begin:])
    return Identity(path, hashlib.sha256(der).hexdigest())


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
