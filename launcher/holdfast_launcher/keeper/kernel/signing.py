"""Signatures of Jupyter messages, over the serialised parts as they are.

Source: "The Wire Protocol" in the jupyter_client documentation: HMAC over header, parent header,
metadata and content, as hex, between ``<IDS|MSG>`` and the parts. It knows no sockets and parses
no JSON. Rejected: jupyter_client's ``Session`` for the byte path: it parses and packs again, so
a client would not get the bytes that the kernel signed, and it costs several times as much.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

from holdfast_protocol.pieces import Buffer

DELIMITER: Final = b"<IDS|MSG>"
#: Below this many bytes one joined digest is cheaper than four updates.
_JOIN_BYTES: Final = 64 * 1024
#: Signature, header, parent header, metadata, content.
_SIGNED_PARTS: Final = 5


class SignatureError(Exception):
    """A message from the kernel's address that the kernel did not sign, or no message at all."""


class Signer:
    """Signs and verifies with one key. An empty key switches signing off, as Jupyter says."""

    def __init__(self, key: bytes, scheme: str = "hmac-sha256") -> None:
        kind, _, digest = scheme.partition("-")
        if kind != "hmac" or not digest:
            raise ValueError(f"unknown signature scheme {scheme!r}: only hmac-<digest> is known")
        self._key = key
        self._digest = digest
        hmac.digest(b"k", b"", digest)  # raises ValueError here, not at the first message

    def __repr__(self) -> str:
        return f"Signer({self._digest}, {'on' if self._key else 'off'})"

    def sign(self, parts: Sequence[bytes]) -> bytes:
        """The signature of (header, parent, metadata, content), in lower-case hex."""
        if not self._key:
            return b""
        if sum(map(len, parts)) <= _JOIN_BYTES:
            return hmac.digest(self._key, b"".join(parts), self._digest).hex().encode()
        mac = hmac.new(self._key, digestmod=self._digest)
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode()

    def unwrap(self, raw: list[bytes]) -> list[bytes]:
        """Header, parent, metadata, content and buffers of a received multipart message.

        What stands before the delimiter (a PUB topic, identities) is dropped. Raises
        SignatureError.
        """
        try:
            start = raw.index(DELIMITER) + 1
        except ValueError:
            raise SignatureError("no delimiter") from None
        if len(raw) < start + _SIGNED_PARTS:
            raise SignatureError("too few parts")
        parts = raw[start + 1 :]
        if self._key and not hmac.compare_digest(self.sign(parts[:4]), raw[start]):
            raise SignatureError("wrong signature")
        return parts

    def wrap(self, parts: Sequence[bytes], buffers: Sequence[Buffer] = ()) -> list[Buffer]:
        """The multipart message for a DEALER, from the four parts and the buffers."""
        return [DELIMITER, self.sign(parts), *parts, *buffers]
