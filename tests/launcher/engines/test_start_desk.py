"""The exclusive start fence: of any number of processes that a start brings up, one is told."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holdfast_launcher.engines.remote.desk import AlreadyStarted, StartDesk, open_start
from holdfast_launcher.errors import BadRequest, LauncherError, Unauthorized
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.state.keeper_files import read_keeper_file

K = "0f7a1a52-5bd0-4d53-9d6d-1f2f7c0f7a10"


@pytest.fixture
def config(tmp_path: Path) -> KeeperConfig:
    (tmp_path / K).mkdir()
    return KeeperConfig(
        kernel_id=K, nonce="n1", spec="python3", user="ada", state_dir="/nowhere", credential="c"
    )


def claim_body(letter: str) -> bytes:
    body = {"incarnation": letter * 32, "host": "n1", "pid": 7, "later": "a newer keeper's"}
    return json.dumps(body).encode()


def ready_body(letter: str, **changes: Any) -> bytes:
    keeper = {
        "kernel_id": K, "nonce": "n1", "pid": 7, "start_time": 1, "credential": "c",
        "endpoint": {"host": "10.0.0.5", "port": 4711}, "fingerprint": "ab", "epoch": "0" * 32,
        "spec": "python3", "user": "ada", "kernel": {"pid": 1, "pgid": 1, "start_time": 1},
        **changes,
    }  # fmt: skip
    return json.dumps({"incarnation": letter * 32, "keeper": keeper}).encode()


def test_one_of_many_claims_wins_and_may_ask_again(tmp_path: Path, config: KeeperConfig) -> None:
    desk, token = StartDesk(tmp_path), open_start(tmp_path / K, config)

    def claim(letter: str) -> KeeperConfig | LauncherError:
        try:
            return desk.claim(K, token, claim_body(letter))
        except LauncherError as error:
            return error

    letters = "0123456789abcdef"
    with ThreadPoolExecutor(16) as pool:
        answers = dict(zip(letters, pool.map(claim, letters), strict=True))
    winners = [letter for letter, answer in answers.items() if isinstance(answer, KeeperConfig)]
    assert len(winners) == 1
    assert sum(isinstance(answer, AlreadyStarted) for answer in answers.values()) == 15
    assert desk.claim(K, token, claim_body(winners[0])) == config
    again = StartDesk(tmp_path)  # another launcher, after a crash
    loser = next(letter for letter in letters if letter != winners[0])
    with pytest.raises(AlreadyStarted):
        again.claim(K, token, claim_body(loser))


def test_a_wrong_token_and_an_unwanted_start_look_the_same(
    tmp_path: Path, config: KeeperConfig
) -> None:
    desk = StartDesk(tmp_path)
    with pytest.raises(Unauthorized) as unwanted:
        desk.claim(K, "x", claim_body("a"))
    open_start(tmp_path / K, config)
    with pytest.raises(Unauthorized) as wrong:
        desk.claim(K, "x", claim_body("a"))
    assert wrong.value.body() == unwanted.value.body()


def test_who_is_ready_must_have_claimed_and_its_token_is_spent(
    tmp_path: Path, config: KeeperConfig
) -> None:
    desk, token = StartDesk(tmp_path), open_start(tmp_path / K, config)
    with pytest.raises(AlreadyStarted):
        desk.ready(K, token, ready_body("a"))
    desk.claim(K, token, claim_body("a"))
    with pytest.raises(AlreadyStarted):
        desk.ready(K, token, ready_body("b"))
    with pytest.raises(BadRequest, match="not the one"):
        desk.ready(K, token, ready_body("a", nonce="n2"))
    desk.ready(K, token, ready_body("a"))
    desk.ready(K, token, ready_body("a"))  # its answer was lost
    with pytest.raises(AlreadyStarted):
        desk.claim(K, token, claim_body("a"))
    found = read_keeper_file(tmp_path / K)
    assert found is not None
    assert (found.endpoint.host, found.fingerprint) == ("10.0.0.5", "ab")
    assert found.process is None, "no pid of another machine is taken for one of ours"


def test_activity_needs_the_keepers_own_credential(tmp_path: Path, config: KeeperConfig) -> None:
    desk, token = StartDesk(tmp_path), open_start(tmp_path / K, config)
    body = b'{"execution_state": "busy", "connections": 2}'
    with pytest.raises(Unauthorized):
        desk.activity(K, "c", body)
    desk.claim(K, token, claim_body("a"))
    desk.ready(K, token, ready_body("a"))
    with pytest.raises(Unauthorized):
        desk.activity(K, token, body)
    desk.activity(K, "c", body)
    written = json.loads((tmp_path / K / "activity.json").read_text())
    assert (written["execution_state"], written["connections"]) == ("busy", 2)


def test_the_same_start_opened_again_keeps_its_token(tmp_path: Path, config: KeeperConfig) -> None:
    first = open_start(tmp_path / K, config)
    assert open_start(tmp_path / K, config) == first
    assert (tmp_path / K / "start.json").stat().st_mode & 0o777 == 0o600
