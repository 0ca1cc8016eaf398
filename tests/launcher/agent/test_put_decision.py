"""What a PUT does with what it finds: every phase, by table."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_launcher.agent.incarnation import Answer, Incarnation, Phase, decide_put
from holdfast_launcher.agent.launching import working_directory
from holdfast_launcher.state.keeper_files import ActivityReader, Endpoint, KeeperFile
from holdfast_launcher.state.statefiles import write_json


def keeper_file(host: str = "127.0.0.1") -> KeeperFile:
    return KeeperFile(
        kernel_id="k",
        nonce="one",
        pid=1,
        start_time=1,
        endpoint=Endpoint(host, 5),
        credential="secret",
        epoch="e",
        spec="python3",
        user="ada",
    )


def incarnation(phase: Phase, *, ready: bool, directory: Path = Path("/none")) -> Incarnation:
    made = Incarnation(kernel_id="k", nonce="one", directory=directory, phase=phase)
    if ready:
        made.take_file(keeper_file())
    return made


@pytest.mark.parametrize(
    ("phase", "ready", "same", "other"),
    [
        (Phase.STARTING, False, Answer.WAIT, Answer.CONFLICT),
        (Phase.ADOPTING, False, Answer.WAIT, Answer.CONFLICT),
        (Phase.ADOPTING, True, Answer.HANDLE, Answer.CONFLICT),
        (Phase.ALIVE, True, Answer.HANDLE, Answer.CONFLICT),
        (Phase.DISPUTED, True, Answer.NOT_NOW, Answer.CONFLICT),
        (Phase.DEAD, True, Answer.HANDLE, Answer.START),
        (Phase.DEAD, False, Answer.START, Answer.START),
    ],
)
def test_every_phase(phase: Phase, ready: bool, same: Answer, other: Answer) -> None:
    present = incarnation(phase, ready=ready)
    assert decide_put(present, "one", buried=None) is same
    assert decide_put(present, "two", buried=None) is other


def test_nothing_there() -> None:
    assert decide_put(None, "one", buried=None) is Answer.START
    assert decide_put(None, "one", buried="one") is Answer.BURIED
    assert decide_put(None, "two", buried="one") is Answer.START


def test_two_incarnations_never_live_together() -> None:
    """Whatever is there: a start is decided only when nothing lives."""
    for phase in Phase:
        for ready in (False, True):
            present = incarnation(phase, ready=ready)
            for nonce in ("one", "two"):
                starts = decide_put(present, nonce, buried=None) is Answer.START
                assert not (starts and present.alive)


def test_a_dead_handle_holds_no_credential() -> None:
    assert incarnation(Phase.ALIVE, ready=True).handle("h")["credential"] == "secret"
    dead = incarnation(Phase.DEAD, ready=True).handle("h")
    assert (dead["credential"], dead["endpoint"], dead["alive"]) == (None, None, False)


def test_a_wildcard_address_is_advertised_as_one_that_can_be_dialled() -> None:
    made = incarnation(Phase.ALIVE, ready=False)
    made.take_file(keeper_file("0.0.0.0"))  # noqa: S104 - nothing listens
    assert made.handle("node7")["endpoint"] == {"host": "node7", "port": 5}


def test_activity_is_read_again_only_when_the_file_changed(tmp_path: Path) -> None:
    reader = ActivityReader(tmp_path)
    assert reader.read().execution_state == "starting"
    path = tmp_path / "activity.json"
    write_json(path, {"execution_state": "busy", "connections": 2, "of_a_newer_version": 1})
    assert (reader.read().execution_state, reader.read().connections) == ("busy", 2)
    first = reader.read()
    assert reader.read() is first
    write_json(path, {"execution_state": "idle", "connections": 0})
    assert reader.read().execution_state == "idle"
    path.unlink()
    assert reader.read().execution_state == "idle"


def test_the_working_directory_is_the_deepest_that_exists(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "nb.ipynb").touch()
    root = str(tmp_path)
    assert working_directory("a/b", root=root) == str(tmp_path / "a" / "b")
    assert working_directory("a/nb.ipynb", root=root) == str(tmp_path / "a")
    assert working_directory("/a/none/x.ipynb", root=root) == str(tmp_path / "a")
    assert working_directory(None, root=root) == root
    assert working_directory("../../etc", root=root) == root
