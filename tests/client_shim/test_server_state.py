"""What outlives the notebook server: as text, as a file, and when it is written."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast_client_shim.server.bookkeeper import Bookkeeper
from holdfast_client_shim.server.state import (
    KernelRow,
    ServerState,
    SessionRow,
    Unreadable,
    decode,
    encode,
)
from holdfast_client_shim.server.state_file import Refused, StateFile, path_for
from holdfast_client_shim.stream.record import ACCEPTED, RequestRecord, StreamRecord
from support.stream_scene import eventually

LOG = logging.getLogger("test")
MODEL = {"id": "k1", "name": "python3", "last_activity": "2026-01-01T00:00:00.000000Z",
         "execution_state": "busy", "connections": 1}  # fmt: skip
STATE = ServerState(
    root_dir="/home/somebody",
    gateways=("http://127.0.0.1:1",),
    holdfast=True,
    kernels=(KernelRow("k1", "python3", MODEL), KernelRow("k2", "r", None)),
    sessions=(SessionRow("s-1", "a.ipynb", "", "notebook", "k1"),
              SessionRow("s-2", None, None, None, "k2")),
    streams=(
        StreamRecord("k1", "tab", bytes(range(16)), 71, (
            RequestRecord("shell", {"msg_id": "m1", "msg_type": "execute_request"}, ACCEPTED),
            RequestRecord("control", {"msg_id": "m2", "msg_type": "debug_request"}, 9),
        )),
        StreamRecord("k2", "tab", requests=(RequestRecord("shell", {"msg_id": "m3"}, None),)),
    ),
)  # fmt: skip


def test_a_state_comes_back_as_it_was() -> None:
    assert decode(encode(STATE)) == STATE
    assert decode(encode(ServerState("/"))) == ServerState("/")


def _without(document: dict[str, Any], *path: str | int) -> dict[str, Any]:
    node: Any = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = 3.5
    return document


@pytest.mark.parametrize(
    "path",
    [
        ("holdfast_notebook_server",), ("root_dir",), ("gateways",), ("gateways", 0),
        ("holdfast",), ("kernels",), ("kernels", 0), ("kernels", 0, "id"),
        ("kernels", 0, "model"), ("sessions", 0, "path"), ("sessions", 0, "kernel_id"),
        ("streams", 0, "epoch"), ("streams", 0, "position"), ("streams", 0, "requests"),
        ("streams", 0, "requests", 0, "header"), ("streams", 0, "requests", 0, "seq"),
    ],
)  # fmt: skip
def test_a_state_is_believed_as_a_whole_or_not_at_all(path: tuple[str | int, ...]) -> None:
    document = json.loads(encode(STATE))
    with pytest.raises(Unreadable):
        decode(json.dumps(_without(document, *path)))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", encode(STATE)[:200]])
def test_damaged_text_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        decode(text)


def own(folder: Path, root: str = "/r") -> StateFile:
    return StateFile.own(path_for(str(folder), root), LOG, patience=0)


def test_the_file_is_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    file = own(tmp_path)
    assert file.read() is None
    for durable in (True, False):
        file.write(encode(STATE), durable=durable)
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert file.read() == encode(STATE)
    assert path_for(str(tmp_path), "/other") != file.path
    file.release()
    file.write("after the end", durable=True)
    assert own(tmp_path).read() == encode(STATE), "who let it go writes no more"


@pytest.mark.parametrize("durable", [True, False])
def test_only_what_is_on_the_disk_gets_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    """A machine that loses power after the renaming has the old text or the new one: on some
    file systems a name can reach the disk before the bytes, and the file is empty then."""
    file = own(tmp_path)
    synced: set[int] = set()
    sync, rename = os.fsync, Path.replace

    def note_sync(handle: int) -> None:
        sync(handle)
        synced.add(os.fstat(handle).st_ino)

    def check_rename(path: Path, target: Path) -> Path:
        assert path.stat().st_ino in synced
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", check_rename)
    file.write("text", durable=durable)
    assert file.read() == "text"
    assert (file.path.parent.stat().st_ino in synced) is durable


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path) -> None:
    file = own(tmp_path)
    file.write("old", durable=True)
    file.path.with_suffix(".new").mkdir()
    with pytest.raises(OSError, match="directory"):
        file.write("new", durable=True)
    assert file.read() == "old"


def test_two_servers_on_one_root_have_one_owner(tmp_path: Path) -> None:
    file = own(tmp_path)
    with pytest.raises(Refused, match=f"process {os.getpid()}"):
        own(tmp_path)
    own(tmp_path, "/another root").release()
    file.release()
    own(tmp_path).release()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    """kill -9: no lock file that somebody must remove by hand."""
    code = (
        "import logging, sys, time\n"
        "from holdfast_client_shim.server.state_file import *\n"
        f"file = StateFile.own(path_for({str(tmp_path)!r}, '/r'), logging.getLogger())\n"
        "print('mine', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mine\n"
        with pytest.raises(Refused, match=f"process {process.pid}"):
            own(tmp_path)
        process.kill()
    own(tmp_path).release()


def test_what_is_not_ours_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = own(tmp_path)
    file.write("something", durable=False)
    file.put_aside("it is damaged")
    file.write("more", durable=False)
    file.put_aside("it is damaged")
    kept = sorted(path.read_text() for path in file.path.parent.glob("*.aside-*"))
    assert kept == ["more", "something"]
    assert "it is damaged" in caplog.text
    assert "go on behind the gateway" in caplog.text
    assert file.read() is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    file = own(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(encode(STATE))
    file.path.symlink_to(elsewhere)
    assert file.read() is None
    file.write("ours", durable=False)
    assert elsewhere.read_text() == encode(STATE)


def test_a_folder_that_will_not_do_is_said(tmp_path: Path) -> None:
    (tmp_path / "holdfast").write_text("a file where the folder should be")
    with pytest.raises(Refused, match="cannot be used"):
        own(tmp_path)


class Notes:
    """A state that changes, and its file."""

    def __init__(self, folder: Path) -> None:
        self.text = "0"
        self.file = own(folder)
        self.writes: list[tuple[str, bool]] = []
        self.fail = False
        self._write = self.file.write
        self.file.write = self.record  # type: ignore[method-assign] # to see each write
        self.book = Bookkeeper(self.file, lambda: self.text, LOG)

    def record(self, text: str, *, durable: bool) -> None:
        self.writes.append((text, durable))
        if self.fail:
            raise OSError("no space left")
        self._write(text, durable=durable)


async def test_many_changes_are_one_write(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    for number in range(50):
        notes.text = str(number)
        notes.book.noted()
    await eventually(lambda: bool(notes.writes))
    assert notes.writes == [("49", False)]
    notes.book.noted()
    notes.text = "50"
    await eventually(lambda: len(notes.writes) == 2)
    notes.book.close()
    assert notes.writes[1:] == [("50", False), ("50", True)]


async def test_settled_is_on_the_disk(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    notes.text = "a kernel"
    await asyncio.gather(*(notes.book.settle() for _ in range(5)))
    assert notes.writes == [("a kernel", True)], "nothing new, nothing to write"
    assert notes.file.read() == "a kernel"
    waiting = asyncio.ensure_future(notes.book.settle())
    notes.text = "two kernels"
    await asyncio.sleep(0)
    waiting.cancel()
    await eventually(lambda: notes.file.read() == "two kernels")
    notes.book.close()
    notes.book.close()
    await notes.book.settle()


async def test_settled_is_what_is_now_also_when_it_was_so_before(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    notes.text = "a kernel"
    await notes.book.settle()
    notes.text = "a kernel and a stream"
    notes.book.noted()
    await eventually(lambda: notes.file.read() == notes.text)
    notes.text = "a kernel"
    await notes.book.settle()
    assert notes.file.read() == "a kernel"
    notes.book.close()


async def test_what_a_full_disk_refused_is_written_when_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing else changes: a kernel that was just started must not be forgotten."""
    monkeypatch.setattr("holdfast_client_shim.server.bookkeeper.AGAIN", 0.01)
    notes = Notes(tmp_path)
    notes.fail, notes.text = True, "a kernel"
    await notes.book.settle()
    await eventually(lambda: len(notes.writes) > 2)
    assert notes.file.read() is None
    notes.fail = False
    await eventually(lambda: notes.file.read() == "a kernel")
    assert notes.writes[-1] == ("a kernel", True), "as it was asked for"
    notes.book.close()


async def test_a_full_disk_is_said_once_and_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes(tmp_path)
    await notes.book.settle()
    notes.fail = True
    for text in ("1", "2"):
        notes.text = text
        await notes.book.settle()
    assert caplog.text.count("cannot be written") == 1
    notes.fail, notes.text = False, "3"
    await notes.book.settle()
    assert notes.file.read() == "3"
    notes.book.close()
