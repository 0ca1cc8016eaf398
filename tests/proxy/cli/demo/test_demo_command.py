"""`holdfast demo` on the command line: usage, what is missing, what is printed, exit codes."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from holdfast_proxy.cli import main
from holdfast_proxy.cli.demo import session
from holdfast_proxy.cli.demo.display import Column
from holdfast_proxy.cli.demo.session import CannotStart, DemoOptions, Result
from support.demo_run import Run

Fake = Callable[..., Coroutine[Any, Any, Result]]


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    result = CliRunner().invoke(main, ["demo", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> list[Result | Exception | DemoOptions]:
    """What the run returns or raises is put in; what it was asked is found there afterwards."""
    box: list[Result | Exception | DemoOptions] = []

    async def run(options: DemoOptions, console: object) -> Result:
        first = box.pop()
        box.append(options)
        if isinstance(first, Exception):
            raise first
        assert isinstance(first, Result)
        return first

    monkeypatch.setattr(session, "run", run)
    return box


def result(run: Run, **more: Any) -> Result:
    return Result([Column("Holdfast", "SIGKILL", run.verdict())], [Path("/x/demo.ipynb")], **more)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds", "7", "--every", "6"], "no kill fits into that time"),
        (["--seconds", "1"], "--seconds"),
        (["--signal", "HUP"], "--signal"),
        (["--against", "nothing"], "--against"),
        (["--proxies", "0"], "--proxies"),
        (["surplus"], "surplus"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what(arguments: list[str], said: str) -> None:
    code, out, err = call(*arguments)
    assert code == 2
    assert said in err
    assert out == ""


def test_options_arrive(outcome: list[Any]) -> None:
    outcome.append(result(Run()))
    arguments = [
        "--seconds",
        "12",
        "--proxies",
        "3",
        "--every",
        "3",
        "--seed",
        "5",
        "--signal",
        "term",
        "--keep",
    ]
    assert call(*arguments)[0] == 0
    options = outcome[0]
    assert (options.seconds, options.proxies, options.every) == (12.0, 3, 3.0)
    assert (options.seed, options.how.name, options.keep) == (5, "SIGTERM", True)
    assert options.against_kernel_gateway is False


def test_a_good_run_prints_the_verdict_and_where_the_notebook_is(outcome: list[Any]) -> None:
    outcome.append(result(Run()))
    code, out, _ = call()
    assert code == 0
    assert "Nothing was lost and nothing came twice." in out
    assert "The executed notebook: /x/demo.ipynb" in out
    assert "Logs and data" not in out


def test_a_bad_run_exits_with_1_and_says_where_the_logs_are(outcome: list[Any]) -> None:
    run = Run()
    del run.streams[1][0]
    outcome.append(result(run, folder=Path("/x")))
    code, out, _ = call()
    assert code == 1
    assert "1 line never came" in out
    assert "Logs and data: /x" in out


def test_json_is_all_that_standard_output_gets(outcome: list[Any]) -> None:
    outcome.append(result(Run()))
    code, out, _ = call("--json")
    said = json.loads(out)
    assert code == said["exit_code"] == 0
    assert said["runs"][0]["lines"]["received"] == 12
    assert said["notebooks"] == ["/x/demo.ipynb"]


def test_a_stopped_run_exits_with_130(outcome: list[Any]) -> None:
    outcome.append(result(Run(), interrupted=True))
    assert call()[0] == 130
    outcome[:] = [Result(interrupted=True)]
    code, out, _ = call()
    assert code == 130
    assert "Stopped before the notebook ran." in out


def test_what_does_not_start_exits_with_4(outcome: list[Any]) -> None:
    outcome.append(CannotStart("etcd does not start"))
    code, out, err = call()
    assert code == 4
    assert "cannot start: etcd does not start" in err
    assert out == ""


def test_a_peer_that_does_not_start_exits_with_4_after_our_verdict(outcome: list[Any]) -> None:
    outcome.append(result(Run(), peer_trouble="kernel-gateway does not start"))
    code, out, err = call()
    assert code == 4
    assert "Nothing was lost" in out
    assert "could not be compared: kernel-gateway does not start" in err


def test_no_etcd_exits_with_4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOLDFAST_ETCD", str(tmp_path / "none"))
    monkeypatch.setattr(session, "become_subreaper", lambda: None)
    code, _, err = call()
    assert code == 4
    assert "cannot be used as etcd" in err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("missing", "arguments", "advice"),
    [
        ("kernel_gateway", ["--against", "kernel-gateway"], 'install "jupyter_kernel_gateway=='),
        ("holdfast_launcher", [], 'pip install "holdfast[launcher]"'),
        ("jupyter_server", [], 'pip install "holdfast[shim]"'),
        ("ipykernel", [], 'pip install "holdfast[all]"'),
    ],
)
def test_what_is_missing_is_named_with_its_pip_install(
    monkeypatch: pytest.MonkeyPatch, missing: str, arguments: list[str], advice: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else real(name)
    )
    code, _, err = call(*arguments)
    assert code == 4
    assert advice in err
