"""What a person sees while the tree starts: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

from click.testing import CliRunner
from rich.console import Console

from holdfast_proxy.cli import main
from holdfast_proxy.cli.up.child import ChildEvent, Phase
from holdfast_proxy.cli.up.plan import Plan, UpOptions
from holdfast_proxy.cli.up.ports import Ports
from holdfast_proxy.cli.up.progress import Progress
from holdfast_proxy.cli.up.session import addresses
from holdfast_proxy.cli.up.state_dir import StateDir

EVENTS = [
    ChildEvent("etcd", Phase.STARTING, 11),
    ChildEvent("etcd", Phase.READY, 11),
    ChildEvent("proxy-1", Phase.STARTING, 12),
    ChildEvent("proxy-1", Phase.WAITING, None, "killed by SIGKILL, starting again"),
    ChildEvent("proxy-1", Phase.STARTING, 13),
    ChildEvent("proxy-1", Phase.READY, 13),
]


def shown(*, terminal: bool) -> str:
    out = io.StringIO()
    now = iter(float(second) for second in range(100))
    console = Console(file=out, force_terminal=terminal, width=80, highlight=False)
    progress = Progress(console, clock=lambda: next(now))
    with progress:
        for event in EVENTS:
            progress.event(event)
    progress.event(ChildEvent("etcd", Phase.WAITING, None, "killed by SIGKILL, starting again"))
    progress.stopping("stopping")
    progress.event(ChildEvent("etcd", Phase.WAITING, None, "ended with exit code 0"))
    progress.event(ChildEvent("etcd", Phase.STOPPED, None))
    return out.getvalue()


def test_without_a_terminal_every_step_is_one_plain_line() -> None:
    assert shown(terminal=False).splitlines() == [
        "etcd: starting (pid 11)",
        "etcd: ready after 1.0 s (pid 11)",
        "proxy-1: starting (pid 12)",
        "proxy-1: killed by SIGKILL, starting again",
        "proxy-1: starting (pid 13)",
        "proxy-1: ready after 2.0 s (pid 13)",
        "etcd: killed by SIGKILL, starting again",
        "stopping",
    ]


def test_on_a_terminal_there_is_a_table_and_a_death_is_still_a_line() -> None:
    text = shown(terminal=True)
    assert "✓" in text
    assert "proxy-1: killed by SIGKILL, starting again" in text
    assert "etcd: ready after" not in text
    assert "exit code 0" not in text, "what is meant to end is no news"


def test_the_last_line_is_the_labs_address_alone(tmp_path: Path) -> None:
    for lab in (True, False):
        options = UpOptions(state_dir=tmp_path, root_dir=tmp_path, lab=lab)
        with StateDir(tmp_path) as state:
            token = state.secret("lab.token")
            lines = addresses(Plan(options, Ports((1, 2), (4,), 3, 5, 6), state))
        assert "proxy-2: http://127.0.0.1:2" in lines
        assert (lines[-1] == f"http://127.0.0.1:3/lab?token={token}") == lab


def test_the_command_names_its_version_its_options_and_what_is_wrong(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["--version"]).output.startswith("holdfast, version 0.")
    text = runner.invoke(main, ["up", "--help"]).output
    for option in (
        *("--proxies", "--launchers", "--port", "--state-dir", "--token"),
        *("--no-lab", "--keep-kernels"),
    ):
        assert option in text
    wrong = runner.invoke(main, ["proxy", "--config", str(tmp_path / "missing.toml")])
    assert wrong.exit_code == 2
    assert "missing.toml" in wrong.output
    busy = runner.invoke(
        main,
        ["up", "--state-dir", str(tmp_path)],
        env={"HOLDFAST_ETCD": str(tmp_path / "no-etcd"), "HOME": str(tmp_path)},
    )
    assert busy.exit_code == 1
    assert "HOLDFAST_ETCD" in busy.output
