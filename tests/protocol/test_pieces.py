"""Bytes in several places read the same as in one, whatever is asked of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_protocol.jupyter import LONG_BYTES, decode_v1, join_v1, lay_out_v1
from holdfast_protocol.pieces import ALONE_BYTES, Pieces, gather

LENGTHS = st.lists(st.sampled_from([0, 1, 7, ALONE_BYTES - 1, ALONE_BYTES, 40_000]), max_size=8)


def parts_of(lengths: list[int]) -> list[bytes]:
    return [bytes([number % 251]) * length for number, length in enumerate(lengths)]


@given(LENGTHS, st.integers(0, 200_000), st.integers(0, 100_000))
def test_a_part_of_them_is_that_part_of_the_whole(
    lengths: list[int], offset: int, length: int
) -> None:
    parts = parts_of(lengths)
    whole, pieces = b"".join(parts), Pieces(parts)
    assert len(pieces) == len(whole)
    assert bytes(pieces) == whole
    assert b"".join(pieces.part(offset, length)) == whole[offset : offset + length]


@given(LENGTHS)
def test_gathered_they_are_the_same_and_long_ones_are_not_copied(lengths: list[int]) -> None:
    parts = parts_of(lengths)
    found = gather(parts)
    assert b"".join(found) == b"".join(parts)
    long = [part for part in parts if len(part) >= ALONE_BYTES]
    assert [part for part in found if any(part is one for one in long)] == long
    assert len(found) <= 2 * len(long) + 1


@settings(deadline=None)
@given(LENGTHS)
def test_a_message_laid_out_is_the_message_joined(lengths: list[int]) -> None:
    parts = [b'{"msg_id":"1"}', b"{}", b"{}", b"{}", *parts_of(lengths)]
    laid_out = lay_out_v1("iopub", parts)
    assert bytes(laid_out) == join_v1("iopub", parts)
    assert isinstance(laid_out, bytes) == (len(laid_out) <= LONG_BYTES)
    message = decode_v1(bytes(laid_out))
    assert list(message.buffers) == parts[4:]


def test_long_buffers_are_views_of_bytes_and_copies_of_what_may_change() -> None:
    data = join_v1("iopub", [b"{}", b"{}", b"{}", b"{}", bytes(LONG_BYTES + 1)])
    (view,) = decode_v1(data).buffers
    assert isinstance(view, memoryview)
    assert view.obj is data
    received = bytearray(data)
    message = decode_v1(memoryview(received))
    received[-1] = 255
    assert bytes(message.buffers[0]) == bytes(LONG_BYTES + 1)
