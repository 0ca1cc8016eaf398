"""Certificates of servers and of files, read and not judged.

``cryptography`` is imported when there is a certificate to read. A server is asked twice where
its certificate is not trusted: once verified, to learn why not, and once not, to read it.
"""

from __future__ import annotations

import socket
import ssl
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from .facts import Certificate


def of_server(url: str, *, ca_file: Path | None, timeout: float) -> Certificate | None:
    """The certificate of an https address; None for http, and when nobody answers."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return None
    host, port = parts.hostname or "", parts.port or 443
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        return _asked(host, port, context, timeout=timeout, trusted=None)
    except ssl.SSLCertVerificationError as error:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            return _asked(host, port, context, timeout=timeout, trusted=error.verify_message)
        except OSError:
            return None
    except OSError:
        return None


def of_file(path: Path) -> list[Certificate]:
    """Every certificate of a PEM file. Raises OSError, ValueError."""
    from cryptography import x509

    return [
        _read(found, trusted=None) for found in x509.load_pem_x509_certificates(path.read_bytes())
    ]


def _asked(
    host: str, port: int, context: ssl.SSLContext, *, timeout: float, trusted: str | None
) -> Certificate | None:
    from cryptography import x509

    with (
        socket.create_connection((host, port), timeout=timeout) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    return None if der is None else _read(x509.load_der_x509_certificate(der), trusted=trusted)


def _read(certificate: object, *, trusted: str | None) -> Certificate:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    subject = str(names[0].value) if names else "a certificate without a name"
    begins, ends = _times(certificate)
    return Certificate(
        subject=f"certificate {subject!r}", not_before=begins, not_after=ends, trusted=trusted
    )


def _times(certificate: object) -> tuple[datetime, datetime]:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
