"""A person's machine, as far as the tutorial needs one: a home folder and terminals.

What a terminal exports and its folder last from one block to the next. Several machines are
folders beside each other; `ssh` and `scp` between them are scripts that change the folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from support.processes import ManagedProcess, wait_until
from support.tutorial.page import Block

_SSH = """#!/bin/bash
node=$1; shift
cd "{machines}/$node" && HOME="{machines}/$node" exec bash -c "$*"
"""
_SCP = """#!/bin/bash
where=${{@: -1}}
exec cp "${{@:1:$#-1}}" "{machines}/${{where%%:*}}/${{where#*:}}"
"""


class Machine:
    """``change`` adapts a block's text to where it runs."""

    def __init__(
        self,
        home: Path,
        *,
        env: Mapping[str, str],
        change: Callable[[str], str] = lambda text: text,
    ) -> None:
        self.home = home
        home.mkdir(parents=True)
        self._env = {**env, "HOME": str(home)}
        self._change = change
        self._state = home / ".terminal"
        self._state.mkdir()
        (self._state / "folder").write_text(str(home))
        (self._state / "exports").touch()
        self.staying: list[ManagedProcess] = []

    def __repr__(self) -> str:
        return f"<Machine {self.home.name} {self.staying}>"

    def run(self, block: Block, *, seconds: float = 120.0) -> str:
        """Run a block to its end; what it printed. Fails when it exits otherwise than it says.

        A block that only looks is run again until it sees what it should.
        """
        said = ""

        def right() -> bool:
            nonlocal said
            done = subprocess.run(
                ["bash", "-c", self._script(block.text, keep=True)],  # noqa: S607 - of the PATH
                env=self._env, timeout=seconds, text=True, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            said = f"{block.text}\n{done.stdout}\nexit code {done.returncode}"
            return done.returncode == block.exits

        if block.only_looks:
            try:
                wait_until(right, seconds=90, what="the right answer")
            except TimeoutError as error:
                raise AssertionError(said) from error
        else:
            assert right(), said
        print(said)
        return said

    def start(self, block: Block) -> ManagedProcess:
        """Start a block that stays."""
        number = len(self.staying)
        process = ManagedProcess(
            f"{self.home.name}-{number}",
            ["bash", "-c", self._script(block.text, keep=False)],
            log=self._state / f"terminal-{number}.log",
            env=self._env,
        )
        self.staying.append(process)
        process.start()
        return process

    def write(self, block: Block) -> None:
        """Write the file that a block shows."""
        assert block.file is not None
        (self.home / "cluster" / block.file).write_text(self._change(block.text))

    def stop(self) -> None:
        """End what stays, the latest first."""
        for process in reversed(self.staying):
            interrupt(process, signal.SIGTERM)

    def _script(self, text: str, *, keep: bool) -> str:
        folder, exports = self._state / "folder", self._state / "exports"
        kept = (
            f"trap 'code=$?; export -p > {exports}; pwd > {folder}; exit $code' EXIT\n"
            if keep
            else ""
        )
        begin = f'. {exports}\ncd "$(cat {folder})"\n{kept}set -eo pipefail\n'
        return begin + self._change(text)


def interrupt(process: ManagedProcess, number: signal.Signals = signal.SIGINT) -> int | None:
    """What Ctrl-C in a terminal does: the signal goes to everything in the foreground there."""
    if not process.alive:
        return None
    os.killpg(process.pid, number)
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait(5)


def write_remote_tools(folder: Path, *, machines: Path) -> None:
    """`ssh` and `scp` between machines that are folders of ``machines``."""
    for name, text in (("ssh", _SSH), ("scp", _SCP)):
        (folder / name).write_text(text.format(machines=machines))
        (folder / name).chmod(0o755)
