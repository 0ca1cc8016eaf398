"""Signatures agree with jupyter_client's, and nothing unsigned passes."""

from __future__ import annotations

import pytest
from jupyter_client.session import Session

from holdfast_launcher.keeper.kernel.signing import DELIMITER, SignatureError, Signer

KEY = b"a key"


def wire_form(scheme: str = "hmac-sha256", size: int = 10) -> list[bytes]:
    session = Session(key=KEY, signature_scheme=scheme)
    return session.serialize(session.msg("stream", {"text": "ü" * size}), ident=b"topic")


@pytest.mark.parametrize("scheme", ["hmac-sha256", "hmac-sha512", "hmac-md5"])
@pytest.mark.parametrize("size", [10, 200_000])
def test_it_verifies_and_signs_as_jupyter_client(scheme, size):
    raw = wire_form(scheme, size)
    signer = Signer(KEY, scheme)
    parts = signer.unwrap([*raw, b"buffer"])
    assert parts == [*raw[-4:], b"buffer"]
    assert signer.wrap(parts[:4], (b"buffer",)) == [*raw[1:], b"buffer"]


def test_what_was_changed_is_refused():
    raw = wire_form()
    for index in range(2, len(raw)):
        forged = list(raw)
        forged[index] += b" "
        with pytest.raises(SignatureError):
            Signer(KEY).unwrap(forged)
    with pytest.raises(SignatureError):
        Signer(b"other").unwrap(raw)


@pytest.mark.parametrize("raw", [[], [b"x"], [DELIMITER], [DELIMITER, b"", b"{}", b"{}", b"{}"]])
def test_what_is_no_message_is_refused(raw):
    with pytest.raises(SignatureError):
        Signer(b"").unwrap(raw)


def test_an_empty_key_switches_signing_off():
    signer = Signer(b"")
    assert signer.unwrap([DELIMITER, b"", b"1", b"2", b"3", b"4"]) == [b"1", b"2", b"3", b"4"]
    assert signer.wrap([b"1"]) == [DELIMITER, b"", b"1"]


@pytest.mark.parametrize("scheme", ["", "sha256", "hmac-", "hmac-nonsense"])
def test_an_unknown_scheme_is_refused_at_once(scheme):
    with pytest.raises(ValueError, match=r"scheme|hash|digest"):
        Signer(KEY, scheme)
