"""Processes by pid and start time; and the files' permissions beside them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_launcher.processes import ProcessGroup, ProcessId, marked, wait_ended
from holdfast_launcher.reaper import describe_status
from holdfast_launcher.state.statefiles import (
    make_private_directory,
    obtain_secret,
    read_json,
    write_json,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, env={"M": "mark"})
    yield process
    process.kill()
    process.wait()


def identify(process: subprocess.Popen[bytes]) -> ProcessId:
    found = ProcessId.of(process.pid)
    assert found is not None
    return found


def test_a_process_is_its_pid_and_its_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    me = identify(sleeper)
    other = ProcessId(me.pid, me.start_time + 1)
    assert me.running
    assert not other.running
    assert other.send(signal.SIGKILL) is False
    assert other.open() is None
    assert sleeper.poll() is None
    assert me.send(signal.SIGSTOP) is True
    assert me.running, "stopped is not gone"
    assert me.send(signal.SIGKILL) is True
    assert wait_ended([me], timeout=10) == []
    assert not me.running, "not even as the zombie that it is until it is waited for"
    assert Path(f"/proc/{me.pid}").exists()


def test_a_command_with_parentheses_and_spaces(tmp_path: Path) -> None:
    odd = tmp_path / "a) S (b 1 2"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "600"], start_new_session=True) as process:
        try:
            found = identify(process)
            assert ProcessGroup(process.pid, found.start_time).members() == [found]
        finally:
            process.kill()


def test_wait_ended_tells_who_is_left(sleeper: subprocess.Popen[bytes]) -> None:
    me = identify(sleeper)
    assert wait_ended([me], timeout=0.01) == [me]


def test_marked_finds_exactly_the_variable(sleeper: subprocess.Popen[bytes]) -> None:
    me = identify(sleeper)
    assert me in marked("M", "mark")
    assert me not in marked("M", "mar")
    assert me not in marked("X", "mark")


def test_a_group_whose_leaders_pid_is_anothers_has_no_members(
    sleeper: subprocess.Popen[bytes],
) -> None:
    me = identify(sleeper)
    assert ProcessGroup(me.pid, me.start_time).members() == [me]
    assert ProcessGroup(me.pid, me.start_time + 1).members() == []


def test_a_group_outlives_its_leader() -> None:
    leader = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600 & echo $!; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert leader.stdin is not None
    assert leader.stdout is not None
    child = ProcessId.of(int(leader.stdout.readline()))
    assert child is not None
    try:
        group = ProcessGroup(leader.pid, identify(leader).start_time)
        leader.stdin.close()
        leader.wait()
        assert group.members() == [child]
    finally:
        child.send(signal.SIGKILL)
        leader.kill()
        leader.wait()
        leader.stdout.close()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, "how is not known"),
        (3 << 8, "exit code 3"),
        (9, "signal 9 (SIGKILL)"),
        (11 | 0x80, "SIGSEGV"),
    ],
)
def test_statuses_in_words(status: int | None, words: str) -> None:
    assert words in describe_status(status)


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        make_private_directory(tmp_path / "a" / "b")
        write_json(tmp_path / "a" / "b" / "f", {"x": 1})
        secret = obtain_secret(tmp_path / "a" / "s")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / "f").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a" / "s").stat().st_mode) == 0o600
    assert obtain_secret(tmp_path / "a" / "s") == secret
    assert len(secret) >= 40


def test_a_directory_that_others_may_enter_is_tightened(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o755)
    make_private_directory(tmp_path / "d")
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_a_damaged_file_reads_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "f").write_text(content)
    assert read_json(tmp_path / "f") is None
    assert read_json(tmp_path / "none") is None
