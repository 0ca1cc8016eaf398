"""What a server takes up of the last run with its root directory, in real ServerApp objects.

No gateway answers here: what is taken up must not depend on one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp

from holdfast_client_shim.server.client import HoldfastGatewayClient
from holdfast_client_shim.server.memory import ServerMemory
from holdfast_client_shim.server.state import (
    KernelRow,
    ServerState,
    SessionRow,
    decode,
    encode,
)
from holdfast_client_shim.server.state_file import StateFile, path_for
from holdfast_client_shim.stream.record import StreamRecord
from support.server_app import URL, server

MODEL = {"id": "k1", "name": "python3", "last_activity": "2026-01-02T03:04:05.000006Z",
         "execution_state": "busy", "connections": 1}  # fmt: skip


def remembered(folder: Path, gateway: str = URL) -> ServerState:
    return ServerState(
        root_dir=os.path.realpath(folder),
        gateways=(gateway,),
        holdfast=True,
        kernels=(KernelRow("k1", "python3", MODEL), KernelRow("k2", "r", None)),
        sessions=(SessionRow("s1", "a.ipynb", "", "notebook", "k1"),
                  SessionRow("s9", "gone.ipynb", "", "notebook", "k9")),
        streams=(StreamRecord("k1", "tab", b"e" * 16, 7), StreamRecord("k9", "tab")),
    )  # fmt: skip


def state_path(folder: Path) -> Path:
    return path_for(str(folder / "DATA_DIR"), os.path.realpath(folder))


def left_behind(folder: Path, text: str) -> Path:
    path = state_path(folder)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def memory_of(app: ServerApp) -> ServerMemory:
    memory = app.gateway_config.memory
    assert isinstance(memory, ServerMemory)
    return memory


def test_kernels_and_sessions_are_there_before_any_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    left_behind(tmp_path, encode(remembered(tmp_path)))
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        manager = app.kernel_manager
        assert sorted(manager.list_kernel_ids()) == ["k1", "k2"]
        kernel = manager.get_kernel("k1")
        assert kernel.kernel == MODEL
        assert kernel.has_kernel
        assert kernel.last_activity.isoformat() == "2026-01-02T03:04:05.000006+00:00"
        assert manager.get_kernel("k2").kernel["execution_state"] == "starting"
        rows = app.session_manager.rows()
        assert [row.session_id for row in rows] == ["s1"], "its kernel is known"
        assert app.gateway_config.kernels_stay, "also if no gateway answers in this run"
        assert "belong to this server again: k1, k2" in capfd.readouterr().err


async def test_streams_come_back_and_everything_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path, encode(remembered(tmp_path)))
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        memory, client = memory_of(app), app.gateway_config
        memory.begin()
        assert client.streams.records() == [StreamRecord("k1", "tab", b"e" * 16, 7)]
        await app.kernel_manager.start_begins("k3", "julia")
        state = decode(state_path(tmp_path).read_text())
        assert KernelRow("k3", "julia", None) in state.kernels, "before its start goes out"
        assert KernelRow("k1", "python3", MODEL) in state.kernels
        assert state.sessions == (SessionRow("s1", "a.ipynb", "", "notebook", "k1"),)
        assert state.streams == (StreamRecord("k1", "tab", b"e" * 16, 7),)
        assert state.holdfast
        app.kernel_manager.remove_kernel("k1")
        app.kernel_manager.start_ended("k3")
        memory.close()
        state = decode(state_path(tmp_path).read_text())
        assert [row.kernel_id for row in state.kernels] == ["k2"]
        assert state.streams == ()


@pytest.mark.parametrize("damage", ["", "{", "not this server's root"])
def test_a_damaged_or_foreign_file_is_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    text = encode(remembered(tmp_path / "other")) if damage.startswith("not") else damage
    path = left_behind(tmp_path, text)
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        assert app.kernel_manager.list_kernel_ids() == []
        (aside,) = path.parent.glob("*.aside-*")
        assert aside.read_text() == text
        said = capfd.readouterr().err
        assert "was not used" in said
        assert aside.name in said
        assert memory_of(app), "from now on there is a new one"


def test_a_second_server_on_the_root_says_so_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("holdfast_client_shim.server.state_file.HANDOVER", 0.0)
    path = left_behind(tmp_path, encode(remembered(tmp_path)))
    owner = StateFile.own(path, logging.getLogger("owner"))
    try:
        with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
            assert app.gateway_config.memory is None
            assert app.kernel_manager.list_kernel_ids() == [], "they are the other one's"
            said = capfd.readouterr().err
            assert f"another notebook server (process {os.getpid()})" in said
            assert "holdfast: active" in said, "streams resume all the same"
        assert path.read_text() == encode(remembered(tmp_path))
    finally:
        owner.release()


def test_a_server_with_other_gateways_keeps_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All of its kernels will be a 404 there, and be forgotten."""
    text = encode(remembered(tmp_path, "https://elsewhere"))
    path = left_behind(tmp_path, text)
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        assert memory_of(app)
        assert path.with_suffix(".before").read_text() == text
        assert "the last run used other gateways (https://elsewhere)" in capfd.readouterr().err


async def test_nothing_is_forgotten_while_nobody_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of sessions waits for the gateway, but not for ever."""
    monkeypatch.setattr("holdfast_client_shim.server.sessions.CHECKED_WITHIN", 0.05)
    left_behind(tmp_path, encode(remembered(tmp_path)))
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        memory = memory_of(app)
        memory.begin()
        async with asyncio.timeout(5):
            (row,) = await app.session_manager.list_sessions()
        assert (row["id"], row["kernel"]) == ("s1", MODEL)
        client = app.gateway_config
        assert isinstance(client, HoldfastGatewayClient)
        await client.stop()
        state = decode(state_path(tmp_path).read_text())
        assert [kernel.kernel_id for kernel in state.kernels] == ["k1", "k2"]


async def test_an_answer_that_is_no_list_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the page of a load balancer that has nobody behind it."""
    monkeypatch.setattr("holdfast_client_shim.server.memory.ASK_AGAIN", 0.01)
    left_behind(tmp_path, encode(remembered(tmp_path)))
    answers = [json.JSONDecodeError("no list", "<html>", 0), KeyError("id"), TypeError(), None]

    async def list_kernels() -> list[dict[str, Any]]:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return []

    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        memory = memory_of(app)
        monkeypatch.setattr(app.kernel_manager, "list_kernels", list_kernels)
        memory.begin()
        begun = asyncio.get_running_loop().time()
        await memory.wait_checked(5)
        assert asyncio.get_running_loop().time() - begun < 5
        assert answers == []
        await app.gateway_config.stop()


async def test_a_server_that_stops_while_it_writes_leaves_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop stops right after, and would complain of tasks that could not end."""
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        memory = memory_of(app)
        before = asyncio.all_tasks()
        waiting = [asyncio.ensure_future(memory.settle()) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for one in waiting:
            one.cancel()  # as a handler whose client has gone
        writing = asyncio.all_tasks() - before - set(waiting)
        assert len(writing) >= 3
        await app.gateway_config.stop()
        assert [task for task in writing if not task.done()] == []


def test_a_session_with_fields_of_other_types_costs_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jupyter_server stores what a client sends as a session's name, be it text or not."""
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}") as app:
        sessions = app.session_manager
        sessions.cursor.execute("INSERT INTO session VALUES ('s1', 7, 1.5, 3, 'k1')")
        state = replace(remembered(tmp_path), sessions=tuple(sessions.rows()))
        assert decode(encode(state)).sessions == (SessionRow("s1", "7", "1.5", "3", "k1"),)


def test_rows_that_the_database_kept_are_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path, encode(remembered(tmp_path)))
    option = f"--SessionManager.database_filepath={tmp_path / 'sessions.db'}"
    for _ in range(2):
        with server(tmp_path, monkeypatch, f"--gateway-url={URL}", option) as app:
            assert [row.session_id for row in app.session_manager.rows()] == ["s1"]
            app.session_manager.close()


def test_another_session_manager_means_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = left_behind(tmp_path, encode(remembered(tmp_path)))
    option = (
        "--ServerApp.session_manager_class=jupyter_server.gateway.managers.GatewaySessionManager"
    )
    with server(tmp_path, monkeypatch, f"--gateway-url={URL}", option) as app:
        assert app.gateway_config.memory is None
        assert "another class manages kernels or sessions" in capfd.readouterr().err
    assert path.read_text() == encode(remembered(tmp_path))
