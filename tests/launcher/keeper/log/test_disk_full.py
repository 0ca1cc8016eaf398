"""The log on a disk that fills up: the oldest go, the newest are there, nothing raises."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_launcher.keeper.log.journal import REASON_DISK, Journal

KIB = 1024
DISK = 256 * KIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB; without the right to mount, a limit on file sizes."""
    directory = tmp_path / "disk"
    directory.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={DISK},mode=0700".encode()
    if libc.mount(b"tmpfs", str(directory).encode(), b"tmpfs", 0, options) == 0:
        yield directory
        assert libc.umount2(str(directory).encode(), 2) == 0
        return
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, old[1]))
    yield directory
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


def body(seq: int) -> bytes:
    return b"%08d" % seq * 512  # 4 KiB


def test_a_full_disk_costs_the_oldest_and_tells_the_reader(small_disk: Path) -> None:
    journal = Journal(small_disk, memory_bytes=64 * KIB, disk_bytes=1024 * KIB * KIB)
    journal.index.add_session("reader", 0)
    for seq in range(1, 501):
        assert journal.append(body(seq)) == seq
    index = journal.index
    loss = index.loss_for("reader", 0)
    assert loss is not None
    assert (loss.first, loss.last) == (1, index.floor)
    assert loss.reason == REASON_DISK
    assert journal.memory_size <= 64 * KIB
    assert index.floor < 490, "what memory holds at least"
    for seq in range(index.floor + 1, 501):
        assert journal.read(seq) == body(seq)
    index.check_invariants()
    journal.close()


def test_the_disk_is_used_again_when_there_is_room(small_disk: Path) -> None:
    journal = Journal(small_disk, memory_bytes=64 * KIB, disk_bytes=1024 * KIB * KIB)
    journal.index.add_session("reader", 0)
    hog = small_disk / "hog"
    hog.write_bytes(b"x" * (DISK - 8 * KIB))
    for seq in range(1, 101):
        journal.append(body(seq))
    dropped = journal.index.floor
    assert dropped > 0
    hog.unlink()
    for seq in range(101, 121):
        journal.append(body(seq))
    assert journal.index.floor == dropped, "nothing more is lost"
    assert journal.disk_size > 0
    journal.close()


def test_an_entry_longer_than_memory_on_a_full_disk_is_lost_with_a_loss(small_disk: Path) -> None:
    journal = Journal(small_disk, memory_bytes=64 * KIB, disk_bytes=1024 * KIB * KIB)
    journal.index.add_session("reader", 0)
    journal.append(os.urandom(512 * KIB))
    assert journal.index.loss_for("reader", 0) is not None
    seq = journal.append(body(2))
    assert journal.read(seq) == body(2)
    journal.close()
