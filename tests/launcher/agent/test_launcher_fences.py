"""The fence book: monotone, on disk before it is answered, longer-lived than its kernel."""

from __future__ import annotations

import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_launcher.errors import ConfigError, StaleToken
from holdfast_launcher.state import statefiles
from holdfast_launcher.state.fences import FenceBook
from holdfast_protocol.fencing import Token


@settings(max_examples=25, deadline=None)  # each example writes to the disk
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=20))
def test_never_falls_and_survives_a_restart(tokens: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as base:
        highest = Token(0, 0)
        for token in (Token(*pair) for pair in tokens):
            book = FenceBook(Path(base) / "fences")  # a restart before each call
            if token < highest:
                with pytest.raises(StaleToken) as caught:
                    book.acknowledge("k", token)
                assert caught.value.highest == highest
            else:
                book.acknowledge("k", token)
                highest = token
            page = FenceBook(Path(base) / "fences").page("k")
            assert page is not None
            assert page.fence == highest


def test_many_at_once_leave_the_highest(tmp_path: Path) -> None:
    book = FenceBook(tmp_path / "fences")

    def acknowledge(revision: int) -> bool:
        try:
            book.acknowledge("k", Token(1, revision))
        except StaleToken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(acknowledge, range(40)))
    assert accepted[39]
    page = FenceBook(tmp_path / "fences").page("k")
    assert page is not None
    assert page.fence == Token(1, 39)


def test_on_disk_before_it_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then rename, then directory: each step is seen to have happened in this order."""
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        steps.append(f"sync {kind}")
        real_fsync(fd)

    def replace(self: Path, target: Path) -> Path:
        steps.append("replace")
        return real_replace(self, target)

    monkeypatch.setattr(statefiles.os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    FenceBook(tmp_path / "fences").acknowledge("k", Token(1, 1))
    assert steps == ["sync file", "replace", "sync directory"]


def test_a_failed_write_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = FenceBook(tmp_path / "fences")
    book.acknowledge("k", Token(1, 1))

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(statefiles.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            book.acknowledge("k", Token(1, 5))
    page = book.page("k")
    assert page is not None
    assert page.fence == Token(1, 1)
    assert [path.name for path in (tmp_path / "fences").iterdir()] == ["k.json"]


def test_a_buried_kernel_keeps_its_token_and_its_nonce(tmp_path: Path) -> None:
    book = FenceBook(tmp_path / "fences")
    book.acknowledge("k", Token(1, 5))
    book.bury("k", Token(1, 5), nonce="n", now=100.0)
    book.bury("k", Token(1, 5), nonce=None, now=200.0)
    page = FenceBook(tmp_path / "fences").page("k")
    assert page is not None
    assert (page.fence, page.buried) == (Token(1, 5), "n")
    with pytest.raises(StaleToken):
        book.acknowledge("k", Token(1, 4))
    book.unbury("k")
    page = book.page("k")
    assert page is not None
    assert (page.fence, page.buried) == (Token(1, 5), None)


def test_only_the_long_buried_are_forgotten(tmp_path: Path) -> None:
    book = FenceBook(tmp_path / "fences")
    for name, buried_at in (("old", 10.0), ("new", 90.0)):
        book.bury(name, Token(1, 1), nonce="n", now=buried_at)
    book.acknowledge("living", Token(1, 1))
    assert book.forget(before=50.0) == 1
    again = FenceBook(tmp_path / "fences")
    assert again.page("old") is None
    assert again.page("new") is not None
    assert again.page("living") is not None


def test_a_damaged_page_is_not_a_low_fence(tmp_path: Path) -> None:
    FenceBook(tmp_path / "fences").acknowledge("k", Token(1, 5))
    (tmp_path / "fences" / "k.json").write_text("{")
    with pytest.raises(ConfigError, match=r"k\.json is damaged"):
        FenceBook(tmp_path / "fences")
