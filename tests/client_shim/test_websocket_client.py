"""RFC 6455 at the client, without sockets: any cut of the bytes gives the same messages."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_client_shim.gateway.websocket import (
    FrameReader,
    Opcode,
    WebSocketFault,
    check_upgrade,
    encode_frame,
    handshake_request,
    parse_answer,
    server_header,
)


def feed(reader: FrameReader, data: bytes, step: int) -> list[tuple[Opcode, bytes]]:
    out: list[tuple[Opcode, bytes]] = []
    position = 0
    while position < len(data):
        space = reader.writable()
        assert len(space) > 0
        piece = data[position : position + min(step, len(space))]
        space[: len(piece)] = piece
        out += [(opcode, bytes(payload)) for opcode, payload in reader.frames(len(piece))]
        position += len(piece)
    return out


@given(
    sizes=st.lists(st.sampled_from([0, 1, 125, 126, 300, 65535, 65536, 200_000]), max_size=6),
    step=st.sampled_from([1, 3, 1000, 70_000, 1 << 20]),
)
def test_frames_come_out_as_they_went_in(sizes: list[int], step: int) -> None:
    step = max(step, sum(sizes) // 200)  # a byte at a time only where that is quick
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    wire = b"".join(server_header(Opcode.BINARY, len(m)) + m for m in messages)
    reader = FrameReader(max_bytes=1 << 20)
    assert feed(reader, wire, step) == [(Opcode.BINARY, m) for m in messages]


def test_fragments_are_joined_and_control_frames_pass_between() -> None:
    wire = b"\x01\x03abc" + server_header(Opcode.PING, 2) + b"hi" + b"\x00\x02de" + b"\x80\x01f"
    reader = FrameReader(max_bytes=100)
    assert feed(reader, wire, 4) == [(Opcode.PING, b"hi"), (Opcode.TEXT, b"abcdef")]


def test_a_large_buffer_is_given_back() -> None:
    reader = FrameReader(max_bytes=1 << 23)
    big = b"x" * (3 << 20)
    assert feed(reader, server_header(Opcode.BINARY, len(big)) + big, 1 << 16)[0][1] == big
    assert len(reader.writable()) < 1 << 20


@pytest.mark.parametrize(
    "wire",
    [
        b"\xc2\x01a",  # a reserved bit
        b"\x82\x81\0\0\0\0a",  # masked
        b"\x83\x01a",  # an unknown opcode
        b"\x80\x01a",  # a continuation of nothing
        b"\x01\x01a\x82\x01b",  # a message inside a message
        b"\x09\x01a",  # a fragmented ping
        b"\x8a\x7e\x00\x80" + b"x" * 128,  # a long pong
        b"\x82\x7f" + struct.pack("!Q", 1 << 40),  # above the bound
    ],
)
def test_what_breaks_the_rfc_is_refused(wire: bytes) -> None:
    with pytest.raises(WebSocketFault):
        feed(FrameReader(max_bytes=1 << 20), wire, 1 << 16)


@given(payload=st.binary(max_size=70_000), mask=st.binary(min_size=4, max_size=4))
def test_our_frames_are_masked(payload: bytes, mask: bytes) -> None:
    frame = encode_frame(Opcode.BINARY, payload, mask)
    offset = len(frame) - len(payload)
    assert frame[offset - 4 : offset] == mask
    assert frame[1] & 0x80
    unmasked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(frame[offset:][:300]))
    assert unmasked == payload[:300]


def test_handshake() -> None:
    # key and accept of RFC 6455 section 1.3
    answer = parse_answer(
        b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    )
    check_upgrade(answer, "dGhlIHNhbXBsZSBub25jZQ==")
    with pytest.raises(WebSocketFault, match="Accept"):
        check_upgrade(answer, "another")
    with pytest.raises(WebSocketFault, match="not an HTTP answer"):
        parse_answer(b"SSH-2.0")


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(ValueError, match="newline"):
        handshake_request(
            host="h", target="/", key="k", headers={"A": "1\r\nB: 2"}, subprotocols=()
        )
