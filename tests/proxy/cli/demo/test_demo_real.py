"""`holdfast demo` as a person runs it: real processes, real kills, nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from holdfast_proxy.cli.up.identity import ProcessIdentity
from support.cluster import clean_env
from support.processes import wait_until

pytestmark = [pytest.mark.long, pytest.mark.e2e, pytest.mark.timeout(300)]

PATIENCE = 270.0


class Demo:
    """One `holdfast demo`; ``marks`` finds whatever it started, re-parented or not."""

    def __init__(self, base: Path, *options: str, terminal: int | None = None, **env: str) -> None:
        self.tmp = base / "tmp"
        self.tmp.mkdir()
        (base / "home").mkdir()
        self.err = base / "err"
        self._out = base / "out"
        self.drawn = b""
        argv = [sys.executable, "-m", "holdfast_proxy.cli", "demo", *options]
        env = clean_env(HOME=str(base / "home"), TMPDIR=str(self.tmp), XDG_STATE_HOME="", **env)
        with self._out.open("wb") as out, self.err.open("wb") as err:
            pipes: tuple[Any, Any] = (terminal, terminal) if terminal else (out, err)
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=pipes[0], stderr=pipes[1], env=env
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def wait_said(self, text: str) -> None:
        def said() -> bool:
            assert self.process.poll() is None, self.err.read_text()
            return text in self.err.read_text()

        wait_until(said, seconds=90, what=f"{text!r} is said")

    def left(self) -> set[ProcessIdentity]:
        """Living processes that have the demo's folder in their command line or environment."""
        found = set()
        for process in psutil.process_iter():
            try:
                marks = [*process.cmdline(), *process.environ().values()]
            except (psutil.Error, OSError):
                continue
            if any(str(self.tmp) in mark for mark in marks) and process.pid != os.getpid():
                identity = ProcessIdentity.of(process.pid)
                found |= {identity} if identity else set()
        return found

    def files(self) -> list[str]:
        """What stayed of it."""
        (folder,) = self.tmp.glob("holdfast-demo-*")
        found = (str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        return sorted(found)


@pytest.fixture
def started() -> Iterator[list[Demo]]:
    demos: list[Demo] = []
    yield demos
    for demo in demos:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()
        for identity in demo.left():
            identity.send(signal.SIGKILL)


def test_nothing_is_lost_while_proxies_are_killed(tmp_path: Path, started: list[Demo]) -> None:
    demo = Demo(tmp_path, "--seconds=12", "--every=3", "--json")
    started.append(demo)
    assert demo.wait() == 0, demo.out + demo.err.read_text()
    said = json.loads(demo.out)
    (run,) = said["runs"]
    assert run["complaints"] == []
    # On a busy machine a proxy may not be back when the next kill is due: that one is left out.
    assert 1 <= run["kills"] == run["survived"] <= 3
    assert run["lines"] == {
        "expected": 1200, "received": 1200, "lost": 0, "doubled": 0, "out_of_order": 0,
    }  # fmt: skip
    assert (run["ran_once"], run["cells"], run["kernel_remembers"]) == (2, 2, 1200)
    assert run["failover_ms"]["max"] < 5000
    print("failovers:", run["failovers_ms"])
    notebook = nbformat.read(said["notebooks"][0], as_version=4)
    text = "".join(output.get("text", "") for output in notebook.cells[2].outputs)
    assert len(re.findall(r"^cell 1, line \d+: ", text, re.MULTILINE)) == 600
    assert "image/svg+xml" in notebook.cells[-1].outputs[-1].data
    assert demo.files() == ["holdfast/notebooks/holdfast-demo.ipynb", "holdfast/notebooks/runs.txt"]
    assert demo.left() == set()
    lines = demo.err.read_text().splitlines()
    assert not [line for line in lines if "\x1b" in line or len(line) > 300]
    assert len([line for line in lines if "the cell went on after" in line]) == run["kills"]


@pytest.mark.parametrize("how", ["TERM", "STOP"])
def test_other_signals(tmp_path: Path, started: list[Demo], how: str) -> None:
    demo = Demo(tmp_path, "--seconds=14", "--every=6", f"--signal={how}", "--json", "--keep")
    started.append(demo)
    assert demo.wait() == 0, demo.out + demo.err.read_text()
    (run,) = json.loads(demo.out)["runs"]
    assert run["signal"] == f"SIG{how}"
    assert run["kills"] >= 1
    assert run["survived"] == run["kills"]
    print("failovers:", run["failovers_ms"])
    assert "holdfast/state/logs/proxy-1.log" in demo.files()
    assert demo.left() == set()


def test_ctrl_c_gives_the_verdict_so_far_and_leaves_nothing(
    tmp_path: Path, started: list[Demo]
) -> None:
    demo = Demo(tmp_path, "--seconds=60", "--every=3")
    started.append(demo)
    demo.wait_said("the cell went on after")
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait() == 130, demo.out + demo.err.read_text()
    assert "Stopped early. So far nothing was lost and nothing came twice." in demo.out
    assert demo.left() == set()
    assert demo.files() == ["holdfast/notebooks/holdfast-demo.ipynb", "holdfast/notebooks/runs.txt"]


def test_ctrl_c_while_it_starts_leaves_nothing(tmp_path: Path, started: list[Demo]) -> None:
    demo = Demo(tmp_path)
    started.append(demo)
    demo.wait_said("proxy-1: starting")
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait() == 130, demo.out + demo.err.read_text()
    assert "Stopped before the notebook ran." in demo.out
    assert demo.left() == set()
    assert list(demo.tmp.glob("holdfast-demo-*")) == []


def test_a_child_that_does_not_start_exits_with_4_and_shows_its_log(
    tmp_path: Path, started: list[Demo]
) -> None:
    broken = tmp_path / "etcd"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "etcd Version: 3.5.30" && exit 0\n'
        "echo the disk is on fire >&2\nexit 3\n"
    )
    broken.chmod(0o755)
    demo = Demo(tmp_path, HOLDFAST_ETCD=str(broken))
    started.append(demo)
    assert demo.wait() == 4
    assert "holdfast demo cannot start: etcd does not start" in demo.err.read_text()
    assert "the disk is on fire" in demo.err.read_text()
    assert demo.left() == set()


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_it_draws_within_its_width(
    tmp_path: Path, started: list[Demo], columns: int
) -> None:
    ours, theirs = pty.openpty()
    demo = Demo(
        tmp_path, "--seconds=8", "--every=3", terminal=theirs,
        COLUMNS=str(columns), LINES="30", TERM="xterm", NO_COLOR="1",
    )  # fmt: skip
    os.close(theirs)
    started.append(demo)
    drawn = bytearray()
    reading = threading.Thread(target=_drain, args=(ours, drawn))
    reading.start()
    assert demo.wait() == 0, drawn.decode()
    reading.join(10)
    os.close(ours)
    text = drawn.decode()
    assert "\x1b[3" not in text.replace("\x1b[3;", "")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    assert "carries the notebook" in plain
    assert "cells that ran exactly once" in plain
    assert [line for line in plain.split("\n") if len(line) > columns and "/" not in line] == []


def _drain(descriptor: int, into: bytearray) -> None:
    while True:
        try:
            data = os.read(descriptor, 65_536)
        except OSError:  # the other end is closed
            return
        if not data:
            return
        into += data


def test_kernel_gateway_beside_it(tmp_path: Path, started: list[Demo]) -> None:
    demo = Demo(
        tmp_path, "--seconds=10", "--every=4", "--json", "--against=kernel-gateway", "--keep"
    )
    started.append(demo)
    assert demo.wait() == 0, demo.out + demo.err.read_text()
    ours, theirs = json.loads(demo.out)["runs"]
    assert (ours["ok"], ours["gateway"]) == (True, "Holdfast")
    assert theirs["gateway"] == "Kernel Gateway 3.0.1"
    assert theirs["kills"] >= 1
    assert theirs["lines"]["expected"] == ours["lines"]["expected"]
    assert theirs["lines"]["doubled"] == 0
    (log,) = demo.tmp.rglob("kernel-gateway/state/logs/lab.log")
    assert "holdfast: " not in log.read_text()
    print(theirs)
    assert demo.left() == set()
