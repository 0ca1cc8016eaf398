"""Sealed secrets open only where they were sealed, with a key that the proxy has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_proxy.ownership.sealing import Sealer, SealError

PATH = "/holdfast/c/v1/kernels/k"


@given(st.text(), st.text(min_size=1))
def test_what_was_sealed_opens(secret: str, key: str) -> None:
    sealer = Sealer([key])
    assert sealer.open(PATH, sealer.seal(PATH, secret)) == secret


def test_a_sealed_value_does_not_open_in_another_record() -> None:
    sealer = Sealer(["key"])
    with pytest.raises(SealError, match="moved"):
        sealer.open(PATH + "2", sealer.seal(PATH, "secret"))


def test_a_rotated_key_still_opens_and_a_foreign_one_does_not() -> None:
    old = Sealer(["old"]).seal(PATH, "secret")
    assert Sealer(["new", "old"]).open(PATH, old) == "secret"
    assert Sealer(["old"]).open(PATH, Sealer(["old", "new"]).seal(PATH, "s")) == "s"
    with pytest.raises(SealError, match="cluster_key"):
        Sealer(["new"]).open(PATH, old)


@given(st.text(max_size=80))
def test_any_text_opens_or_is_refused(text: str) -> None:
    with pytest.raises(SealError):
        Sealer(["key"]).open(PATH, text)


@pytest.mark.parametrize("position", [-1, -9, 30])
def test_a_damaged_value_is_refused(position: int) -> None:
    sealer = Sealer(["key"])
    sealed = list(sealer.seal(PATH, "a secret of some length"))
    sealed[position] = "A" if sealed[position] != "A" else "B"
    with pytest.raises(SealError):
        sealer.open(PATH, "".join(sealed))


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    sealer = Sealer(["key"])
    assert sealer.seal(PATH, "secret") != sealer.seal(PATH, "secret")
    assert "key" not in repr(sealer).replace("key ", "")
