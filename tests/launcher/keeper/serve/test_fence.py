"""The fence never goes back, not even over a restart of the keeper."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from holdfast_launcher.keeper import fence as fence_module
from holdfast_launcher.keeper.fence import Fence, StaleToken
from holdfast_protocol.fencing import Token


async def test_a_lower_token_is_stale_and_told_the_highest(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    await fence.acknowledge(Token(1, 5))
    await fence.acknowledge(Token(1, 5))
    with pytest.raises(StaleToken) as caught:
        await fence.acknowledge(Token(1, 4))
    assert caught.value.highest == Token(1, 5)


async def test_it_is_on_disk_before_it_is_acknowledged_and_private(tmp_path: Path) -> None:
    await Fence(tmp_path).acknowledge(Token(3, 7))
    path = tmp_path / "fence.json"
    assert json.loads(path.read_text()) == {"fence": [3, 7]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Fence(tmp_path)
    with pytest.raises(StaleToken):
        again.check(Token(3, 6))


async def test_a_failed_write_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = Fence(tmp_path)

    def full(path: Path, value: object, *, durable: bool) -> None:
        assert durable
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fence_module, "write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        await fence.acknowledge(Token(1, 1))
    assert fence.highest == Token(0, 0)


async def test_concurrent_acknowledgements_end_at_the_highest(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    tokens = [Token(1, revision) for revision in (3, 9, 1, 7, 9, 2)]
    results = await asyncio.gather(
        *(fence.acknowledge(token) for token in tokens), return_exceptions=True
    )
    assert fence.highest == Token(1, 9) == Fence(tmp_path).highest
    assert [isinstance(result, StaleToken) for result in results] == [
        False, False, True, True, False, True,
    ]  # fmt: skip


def test_an_unreadable_fence_is_no_keeper(tmp_path: Path) -> None:
    (tmp_path / "fence.json").write_text("{half")
    with pytest.raises(ValueError, match=r"fence\.json"):
        Fence(tmp_path)
