"""The launcher's TOML file: strict, with errors that name the key."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from holdfast_launcher import config as module
from holdfast_launcher.config import LauncherConfig, load_config, parse_config
from holdfast_launcher.errors import ConfigError

LEAST = {"launcher_id": "n", "state_dir": "state"}


def parse(base: Path, **more: Any) -> LauncherConfig:
    return parse_config({**LEAST, **more}, base=base)


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    config = parse(tmp_path)
    assert config.state == tmp_path / "state"
    assert (config.host, config.port, config.single_user) == ("127.0.0.1", 0, False)
    assert config.log_memory_bytes == 8 * 1024**2
    assert config.log_disk_bytes == 1024**3
    assert config.plain


def test_example_of_the_module_is_valid(tmp_path: Path) -> None:
    example = textwrap.dedent((module.__doc__ or "").split("Example::")[1])
    secret = tmp_path / "join.token"
    secret.write_text("join-secret\n")
    secret.chmod(0o600)
    path = tmp_path / "launcher.toml"
    path.write_text(example)
    config = load_config(path)
    assert config.join_token == "join-secret"
    assert config.single_user
    assert "join-secret" not in repr(config)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"singel_user": True}, "singel_user"),
        ({"capacity": {"kernel": 1}}, "kernel"),
        ({"port": 70000}, "port"),
        ({"port": "8"}, "port"),
        ({"engine": "slurm"}, "engine"),
        ({"launcher_id": "../x"}, "launcher_id"),
        ({"proxies": ["http://node7:8888"]}, "node7"),
        ({"proxies": ["ftp://127.0.0.1"]}, "ftp"),
        ({"host": "0.0.0.0"}, "advertise_host"),  # noqa: S104 - that it is refused is the test
        ({"env_whitelist": ["LD_PRELOAD"]}, "LD_PRELOAD"),
        ({"env_whitelist": ["PYTHONPATH"]}, "PYTHONPATH"),
        ({"keeper_entry": "module"}, "keeper_entry"),
        ({"join_token_file": "missing"}, "join_token_file"),
        ({"join_token": "a", "join_token_file": "b"}, "give one"),
        ({"heartbeat_interval": 0}, "heartbeat_interval"),
    ],
)
def test_what_is_refused(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(tmp_path, **more)


def test_an_unknown_key_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"known keys:.*single_user"):
        parse(tmp_path, singel_user=True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_read_is_refused(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "token"
    secret.write_text("s")
    secret.chmod(mode)
    with pytest.raises(ConfigError, match="may be read by others"):
        parse(tmp_path, join_token_file="token")
    path = tmp_path / "launcher.toml"
    path.write_text('launcher_id = "n"\nstate_dir = "s"\njoin_token = "x"\n')
    path.chmod(mode)
    with pytest.raises(ConfigError, match="may be read by others"):
        load_config(path)


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(tmp_path / "bad.toml")


def test_plain_proxies_on_a_trusted_network_are_a_decision(tmp_path: Path) -> None:
    config = parse(tmp_path, proxies=["http://node7:8888/"], allow_plain_proxies=True)
    assert config.proxies == ("http://node7:8888",)
    assert parse(tmp_path, proxies=["https://node7"]).proxies == ("https://node7",)
