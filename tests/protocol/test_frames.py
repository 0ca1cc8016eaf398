"""Frames: every value survives the wire, and no bytes raise anything but FrameError."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol.errors import FrameError
from holdfast_protocol.frames import (
    Ack,
    Bye,
    ByeReason,
    Chunk,
    ClientData,
    Frame,
    Gap,
    KeeperData,
    Resume,
    Resumed,
    decode,
    encode_keeper_data,
)

u64 = st.integers(0, 2**63)
id16 = st.binary(min_size=16, max_size=16)
messages = st.lists(st.binary(max_size=40), min_size=1, max_size=5).map(tuple)


@st.composite
def keeper_data(draw: st.DrawFn) -> KeeperData:
    after = draw(st.integers(0, 2**40))
    seq, entries = after, []
    for data in draw(messages):
        seq += draw(st.integers(1, 2**31))
        entries.append((seq, data))
    return KeeperData(after, tuple(entries))


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    after, piece = draw(st.integers(0, 2**40)), draw(st.binary(min_size=1, max_size=50))
    offset = draw(st.integers(0, 2**40))
    total = offset + len(piece) + draw(st.integers(0, 100))
    return Chunk(after, after + draw(st.integers(1, 99)), offset, total, piece)


frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Resume, id16, u64, id16, u64, u64, u64, st.integers(0, 255)),
    st.builds(Resumed, id16, u64, u64, u64, st.integers(0, 255)),
    st.builds(ClientData, st.integers(1, 2**40), messages),
    keeper_data(),
    chunks(),
    st.builds(Ack, u64),
    st.tuples(u64, u64, u64, st.text(), messages).map(
        lambda t: Gap(min(t[:2]), max(t[:2]), t[2], t[3], t[4])
    ),
    st.builds(Bye, st.sampled_from(ByeReason), st.booleans(), st.text()),
)


@given(frames)
def test_every_frame_survives_the_wire(frame: Frame) -> None:
    assert decode(frame.encode()) == frame
    assert decode(memoryview(frame.encode())) == frame


@given(st.binary(max_size=120))
def test_no_bytes_raise_anything_but_frame_error(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        decode(data)


@given(frames, st.data())
def test_a_cut_or_changed_frame_is_refused_or_still_a_frame(
    frame: Frame, data: st.DataObject
) -> None:
    raw = bytearray(frame.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(FrameError):
        decode(raw[: data.draw(st.integers(0, len(raw)))])


def test_the_layout_on_the_wire_does_not_move() -> None:
    assert Ack(5).encode().hex() == "06" + "0500000000000000"
    assert KeeperData(7, ((9, b"hi"),)).encode().hex() == (
        "04" + "0700000000000000" + "02000000" + "02000000" + "6869"
    )
    assert ClientData(3, (b"a",)).encode().hex() == "03" + "0300000000000000" + "01000000" + "61"
    assert len(Resume(bytes(16), 1).encode()) == 1 + 1 + 16 + 8 + 16 + 8 + 8 + 8


def test_entries_must_rise() -> None:
    with pytest.raises(ValueError, match="does not follow"):
        encode_keeper_data(5, [(5, b"x")])
