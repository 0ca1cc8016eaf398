"""The configuration file: strict, secret files private, nothing secret shown."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from holdfast_proxy.config import (
    ConfigError,
    Mode,
    ProxyConfig,
    Secret,
    check_config,
    load_config,
    parse_config,
)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_defaults_listen_on_loopback_only(tmp_path: Path) -> None:
    config = parse_config("", base=tmp_path)
    assert (config.host, config.lease_ttl, config.node_grace) == ("127.0.0.1", 5.0, 600.0)
    assert config.takeover_wait == 15.0
    assert config.mode is Mode.ACTIVE_ACTIVE
    assert config.etcd.endpoints == ("http://127.0.0.1:2379",)


def test_everything_that_up_writes_is_read(tmp_path: Path) -> None:
    write(tmp_path / "token", "s3cret\n")
    write(tmp_path / "key", "cluster-secret")
    config = load_config(
        write(
            tmp_path / "proxy.toml",
            """
            proxy_id = "p1"
            port = 0
            ready_file = "p1.json"
            token_file = "token"
            single_user = true
            cluster_key_file = "key"
            mode = "active-passive"
            allow_origin = ["https://lab.example"]
            [etcd]
            endpoints = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
            """,
            0o644,
        )
    )
    assert config.token == Secret("s3cret")
    assert config.cluster_key == Secret("cluster-secret")
    assert config.ready_file == str(tmp_path / "p1.json")
    assert config.mode is Mode.ACTIVE_PASSIVE
    assert config.etcd.endpoints == ("http://127.0.0.1:1", "http://127.0.0.1:2")


def test_bound_settles_id_and_url(tmp_path: Path) -> None:
    config = parse_config('port = 0\nbase_url = "/gw/"', base=tmp_path).bound(4321)
    assert config.url == "http://127.0.0.1:4321/gw"
    assert config.proxy_id is not None
    assert config.proxy_id.endswith("-4321")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("singel_user = true", "singel_user"),
        ("[etcd]\nendpoint = []", "etcd.endpoint"),
        ('[[users]]\nname = "a"\ntokn = "b"', "users.tokn"),
    ],
)
def test_an_unknown_key_is_named_with_the_valid_ones(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match="the valid ones are") as caught:
        parse_config(text, base=tmp_path)
    assert repr(named) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = 70000", "port"),
        ("port = 'x'", "port"),
        ("lease_ttl = 0.5", "lease_ttl"),
        ("mode = 'both'", "mode"),
        ("host = '0.0.0.0'", "no token"),
        ("host = '0.0.0.0'\n[[users]]\nname='a'", "token"),
        ("tls_cert = 'a.pem'", "tls_key"),
        ("base_url = 'gw'", "base_url"),
        ("proxy_id = '../x'", "proxy_id"),
        ("token = ''", "token"),
        ("token = 3", "token"),
        ("token = 'a'\n[[users]]\nname='a'\ntoken='b'", "choose one"),
        ("[[users]]\nname='a'\ntoken='b'\n[[users]]\nname='c'\ntoken='b'", "of its own"),
        ("[[users]]\nname='a'\ntoken='b'\n[[users]]\nname='a'\ntoken='c'", "same name"),
        ("token_file = 'absent'", "token_file"),
        ("port = ", "not TOML"),
        ('user = "a\\nb"', "printable"),
        ('user = ""', "printable"),
        ("log_level = 'loud'", "log_level"),
        ("node_grace = inf", "finite"),
    ],
)
def test_wrong_values_are_refused_with_the_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config(text, base=tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "token", "x", mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        parse_config("token_file = 'token'", base=tmp_path)


def test_a_readable_configuration_with_a_secret_in_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        load_config(write(tmp_path / "c.toml", "[etcd]\npassword = 'x'", 0o644))


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "token", "x")
    with pytest.raises(ConfigError, match="exclude each other"):
        parse_config("token_file = 'token'\ntoken = 'y'", base=tmp_path)


def test_no_secret_shows_in_repr(tmp_path: Path) -> None:
    config = parse_config(
        "cluster_key = 'hidden1'\njoin_token = 'hidden2'\n"
        "[etcd]\nuser = 'u'\npassword = 'hidden3'\n[[users]]\nname = 'a'\ntoken = 'hidden4'",
        base=tmp_path,
    )
    assert "hidden" not in repr(config)
    assert "hidden" not in f"{config} {config.etcd.password} {config.users[0]}"


def test_frozen(tmp_path: Path) -> None:
    config = parse_config("", base=tmp_path)
    with pytest.raises(AttributeError):
        config.port = 1  # type: ignore[misc]
    check_config(msgspec.structs.replace(config, port=1))
    assert isinstance(config, ProxyConfig)
