"""Secrets in records: AES-256-GCM under the cluster key, bound to the key path that holds them.

etcd's contents are read by backups and operators, so a keeper's credential or a user's variables
never stand there in clear. The key path is associated data: a sealed value that is copied to
another record does not open. The id of the sealing key travels with it, so that a cluster can
change its key while old values still open. Knows bytes and keys; must not know records.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: NIST SP 800-38D recommends 96 bits.
_NONCE_BYTES = 12


class SealError(Exception):
    """A sealed value does not open: another cluster's key, another record's, or damaged."""


class Sealer:
    """Seals with the first of ``keys`` and opens with any of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ValueError("sealing needs at least one key")
        pairs = [(_key_id(key), AESGCM(_derive(key))) for key in keys]
        self._current = pairs[0][0]
        self._ciphers = dict(pairs)

    def __repr__(self) -> str:
        return f"<Sealer with key {self._current}, opens {len(self._ciphers)}>"

    def seal(self, path: str, secret: str) -> str:
        """``path``: the etcd key of the record that will hold the result."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, secret.encode(), path.encode())
        return f"1.{self._current}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, path: str, sealed: str) -> str:
        """Raises SealError."""
        version, _, rest = sealed.partition(".")
        key_id, _, text = rest.partition(".")
        cipher = self._ciphers.get(key_id)
        if version != "1" or cipher is None:
            raise SealError(
                f"the secret in {path} was sealed with key {key_id[:16]!r}, which this proxy "
                "does not have: give all proxies the same cluster_key"
            )
        try:
            data = base64.urlsafe_b64decode(text)
            plain = cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], path.encode())
        except (InvalidTag, ValueError, binascii.Error):
            raise SealError(f"the secret in {path} is damaged or was moved there") from None
        return plain.decode()


def _derive(key: str) -> bytes:
    """A key of its own for this use (RFC 5869): the cluster key also authenticates proxies."""
    kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"holdfast record sealing v1")
    return kdf.derive(key.encode())


def _key_id(key: str) -> str:
    """Names a key without giving it away: a hash of the derived key, not of the key itself."""
    return hashlib.sha256(b"holdfast key id\0" + _derive(key)).hexdigest()[:12]
