"""The upgrade's bytes, without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_proxy.edge.tunnel.handshake import (
    AnswerReader,
    ClientUpgrade,
    HandshakeError,
    accept_value,
    client_answer,
    keeper_request,
    read_upgrade,
)
from holdfast_proxy.errors import BadRequest

HEAD = b"HTTP/1.1 101 Switching\r\nA: 1\r\nsec-websocket-protocol:  v1 \r\n\r\n"


def ask(upgrade: ClientUpgrade, **changes: str) -> bytes:
    values = {
        "key": "k",
        "authority": "127.0.0.1:1",
        "credential": "c",
        "tunnel_id": "p.1",
        "user": "u",
        "grants": "read",
    }
    return keeper_request(upgrade, **{**values, **changes})  # type: ignore[arg-type]


def test_accept_is_the_rfcs_example() -> None:
    assert accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    answer = client_answer("dGhlIHNhbXBsZSBub25jZQ==", None)
    assert answer.endswith(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
    assert b"Sec-WebSocket-Protocol" not in answer


@given(st.data(), st.binary(max_size=64))
def test_an_answer_in_any_pieces_is_the_same(data: st.DataObject, tail: bytes) -> None:
    whole = HEAD + tail
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    reader, answer, rest = AnswerReader(), None, b""
    for low, high in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if answer is None:
            answer = reader.feed(whole[low:high])
        else:
            rest += whole[low:high]
    assert answer is not None
    assert (answer.status, answer.subprotocol) == (101, "v1")
    assert reader.tail + rest == tail


@given(st.binary(max_size=400))
def test_garbage_raises_its_own_error_or_waits(garbage: bytes) -> None:
    try:
        AnswerReader().feed(garbage + b"\r\n\r\n")
    except HandshakeError:
        pass
    else:
        assert garbage.startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize("name", ["credential", "user", "tunnel_id", "grants", "authority"])
@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\nb", "\0"])
def test_no_value_ends_a_header_early(name: str, bad: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        ask(ClientUpgrade("k", (), None), **{name: bad})


@given(st.text(st.characters(exclude_categories=()), max_size=256))
def test_a_session_id_is_data_and_nothing_else(session_id: str) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "WebSocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    try:
        upgrade = read_upgrade(headers, session_id)
        request = ask(upgrade)
    except BadRequest:
        return
    line, _, rest = request.partition(b"\r\n")
    assert line.count(b" ") == 2
    assert line.startswith(b"GET /v1/channels")
    assert line.count(b"&") == 0
    assert rest.count(b"\r\n\r\n") == 1
