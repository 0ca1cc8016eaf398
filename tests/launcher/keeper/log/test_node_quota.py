"""What all logs of a node have on disk together: who gives way, and how it is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_launcher.keeper.log import quota as quota_module
from holdfast_launcher.keeper.log.journal import REASON_QUOTA, Journal
from holdfast_launcher.keeper.log.quota import QUOTA_FILE, NodeQuota, level
from holdfast_launcher.keeper.log.segments import Segments
from holdfast_protocol.jupyter import Message
from support.keeper_clients import PlainClient, execute, texts
from support.keeper_process import KeeperProcess, eventually, running_keeper

KIB = 1024
MIB = 1024 * KIB


@given(st.lists(st.integers(0, 1000), max_size=8), st.integers(0, 3000))
def test_the_level_fills_the_quota_and_nobody_pays_for_a_larger_one(
    sizes: list[int], quota: int
) -> None:
    found = level(sizes, quota)
    kept = [min(size, found) for size in sizes]
    if sum(sizes) <= quota:
        assert kept == sizes
    else:
        assert quota - len(sizes) < sum(kept) <= quota
        assert max(kept) == found


class Node:
    """Journals that share a quota, as keepers do."""

    def __init__(self, base: Path, quota: int) -> None:
        self.base = base
        self.directory = base / "logs"
        self.directory.mkdir()
        self.allow(quota)

    def allow(self, quota: int) -> None:
        (self.directory / QUOTA_FILE).write_text(str(quota))

    def log(self, name: str) -> Journal:
        place = self.base / name
        place.mkdir()
        journal = Journal(
            place,
            memory_bytes=64 * KIB,
            disk_bytes=1024 * MIB,
            quota=NodeQuota(self.directory, name=name),
        )
        journal.index.add_session("s", 0)
        return journal


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(quota_module, "LOOK_BYTES", 256 * KIB)
    defaults = Segments.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "segment_bytes", 256 * KIB)
    return Node(tmp_path, 4 * MIB)


def fill(journal: Journal, size: int) -> None:
    for _ in range(size // (32 * KIB)):
        journal.append(bytes(32 * KIB))


def test_a_log_that_is_alone_has_all_of_it(node: Node) -> None:
    one = node.log("one")
    fill(one, 16 * MIB)
    loss = one.index.loss_for("s", 0)
    assert loss is not None
    assert loss.reason == REASON_QUOTA
    assert 3 * MIB < one.disk_size <= 5 * MIB
    assert one.index.next_for("s", loss.last) is not None
    one.close()


def test_the_largest_gives_way_and_a_small_one_keeps_all(node: Node) -> None:
    large, small = node.log("large"), node.log("small")
    fill(large, 4 * MIB)
    fill(small, MIB)
    assert large.index.loss_for("s", 0) is None
    large.heed_quota()  # what an idle keeper does now and then
    loss = large.index.loss_for("s", 0)
    assert loss is not None
    assert loss.reason == REASON_QUOTA
    assert small.index.loss_for("s", 0) is None
    fill(large, 4 * MIB)
    small.heed_quota()
    assert small.index.loss_for("s", 0) is None
    assert large.disk_size + small.disk_size <= 5 * MIB
    large.close()
    small.close()


def test_what_readers_have_taken_is_room_for_others(node: Node) -> None:
    one, two = node.log("one"), node.log("two")
    fill(one, 3 * MIB)
    one.index.acknowledge("s", one.index.head)
    one.trim()
    fill(two, 3 * MIB)
    two.heed_quota()
    assert two.index.loss_for("s", 0) is None
    one.close()
    two.close()


def test_a_killed_keepers_share_is_free(node: Node) -> None:
    """Its file is left; nobody holds it."""
    left = node.directory / "killed.bytes"
    left.touch()
    with left.open("r+b") as file:
        file.truncate(4 * MIB)
    one = node.log("one")
    fill(one, 3 * MIB)
    one.heed_quota()
    assert one.index.loss_for("s", 0) is None
    assert not left.exists()
    one.close()
    assert [path.name for path in node.directory.iterdir()] == [QUOTA_FILE]


def test_a_keeper_that_takes_over_replaces_the_file_of_the_one_before(node: Node) -> None:
    before = NodeQuota(node.directory, name="kernel")
    before.note(4 * MIB)
    after = NodeQuota(node.directory, name="kernel")
    after.note(MIB)
    other = NodeQuota(node.directory, name="other")
    other.note(2 * MIB)
    assert other.excess() == 0
    assert (node.directory / "kernel.bytes").stat().st_size == MIB


def test_another_quota_holds_at_once(node: Node) -> None:
    one = node.log("one")
    fill(one, 3 * MIB)
    one.heed_quota()
    assert one.index.loss_for("s", 0) is None
    node.allow(MIB)
    one.heed_quota()
    assert one.disk_size <= MIB
    assert one.index.loss_for("s", 0) is not None
    one.close()


@pytest.mark.parametrize("damage", ["no directory", "no number", "no quota"])
def test_without_the_files_a_log_has_its_own_limit_only(node: Node, damage: str) -> None:
    one = node.log("one")
    if damage == "no directory":
        (node.directory / QUOTA_FILE).unlink()
        node.directory.rmdir()
    elif damage == "no number":
        (node.directory / QUOTA_FILE).write_text("lots")
    else:
        (node.directory / QUOTA_FILE).unlink()
    fill(one, 8 * MIB)
    assert one.index.loss_for("s", 0) is None
    one.close()


async def test_two_keepers_on_one_node(tmp_path: Path) -> None:
    """Output that nobody reads, in two kernels: the cell of the one that lost some says so."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / QUOTA_FILE).write_text(str(40 * MIB))
    settings = {"log_quota_dir": str(logs), "log_memory_bytes": 64 * KIB, "log_burst_bytes": 0}

    async def burst(keeper: KeeperProcess, count: int) -> tuple[PlainClient, Message]:
        await keeper.start_kernel()
        client = PlainClient(keeper)
        await client.connect()
        request = execute(f"burst {count} 100000")
        await client.send(request)
        await client.until(lambda: client.outputs > 0)
        client.cut()
        return client, request

    def total() -> int:
        return sum(path.stat().st_size for path in logs.glob("*.bytes"))

    async def head(keeper: KeeperProcess) -> int:
        return int((await keeper.state())["log"]["head"])

    async def all_said() -> bool:
        return await head(large) > 500 and await head(small) > 100 and total() <= 40 * MIB

    async with (
        running_keeper(tmp_path / "a", kernel_id="a" * 32, **settings) as large,
        running_keeper(tmp_path / "b", kernel_id="b" * 32, **settings) as small,
    ):
        (one, first), (two, second) = await asyncio.gather(burst(large, 500), burst(small, 100))
        await eventually(all_said)
        for client, request in ((one, first), (two, second)):
            await client.connect()
            await client.until(lambda c=client, r=request: c.done(r))  # type: ignore[misc]
        assert any("messages lost: node quota" in text for text in texts(one.messages, first))
        numbers = {int(text.split()[0]) for text in texts(two.messages, second)}
        assert numbers == set(range(100)), "the smaller one lost nothing"
