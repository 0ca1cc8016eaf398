"""What the local engine ends, and removes, when a keeper is gone: by the keeper's own files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from holdfast_launcher.engines.local import end_kernel_processes
from holdfast_launcher.engines.zygote import write_launch_file
from holdfast_launcher.keeper.activity import StateWriter
from holdfast_launcher.keeper.kernel.launch import IncarnationRecord
from holdfast_launcher.state.keeper_files import read_keeper_file

NOBODY = "no process carries this mark"
IDENTITY = {
    "kernel_id": "k",
    "nonce": "n",
    "pid": 1,
    "start_time": 1,
    "endpoint": {"host": "127.0.0.1", "port": 1},
    "fingerprint": None,
    "credential": "c",
    "epoch": "0" * 32,
    "spec": "python3",
    "user": "ada",
}


@pytest.fixture
def kernel() -> Iterator[subprocess.Popen[bytes]]:
    """A kernel whose program threw its environment away, and with it our mark."""
    process = subprocess.Popen(["/bin/sleep", "600"], env={}, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def record(directory: Path, socket_dir: Path) -> None:
    (directory / "kernel").mkdir()
    incarnation = IncarnationRecord(
        incarnation=1,
        pid=1,
        pgid=1,
        start_time=1,
        connection_file="c.json",
        socket_dir=str(socket_dir),
        interrupt_mode="signal",
    )
    (directory / "kernel" / "incarnation.json").write_bytes(msgspec.json.encode(incarnation))


def test_a_kernel_without_our_mark_is_ended_by_what_its_keeper_wrote(
    tmp_path: Path, kernel: subprocess.Popen[bytes]
) -> None:
    write_launch_file(tmp_path, {"kernel_id": "k", "nonce": "n"})
    writer = StateWriter(tmp_path, identity=IDENTITY, activity=dict, kernel_pid=lambda: kernel.pid)
    writer.write_now()
    found = read_keeper_file(tmp_path)
    assert found is not None
    assert found.kernel is not None
    assert (found.kernel.pid, found.group and found.group.pgid) == (kernel.pid, kernel.pid)
    assert end_kernel_processes(tmp_path, mark=NOBODY, timeout=5.0)
    assert kernel.wait(timeout=5) == -9


def test_its_sockets_outside_the_state_directory_are_removed(tmp_path: Path) -> None:
    sockets = Path(tempfile.mkdtemp(prefix="holdfast-"))
    (sockets / "s1-1").touch()
    record(tmp_path, sockets)
    assert end_kernel_processes(tmp_path, mark=NOBODY, timeout=5.0)
    assert not sockets.exists()
    assert end_kernel_processes(tmp_path, mark=NOBODY, timeout=5.0), "again is no error"


@pytest.mark.parametrize("kind", ["another name", "a link"])
def test_only_a_directory_that_a_keeper_makes_is_removed(tmp_path: Path, kind: str) -> None:
    """The file lies where the user's own code can write."""
    precious = tmp_path / "precious"
    precious.mkdir()
    named = precious
    if kind == "a link":
        named = tmp_path / "holdfast-link"
        os.symlink(precious, named)
    directory = tmp_path / "state"
    directory.mkdir()
    record(directory, named)
    assert end_kernel_processes(directory, mark=NOBODY, timeout=5.0)
    assert precious.is_dir()
