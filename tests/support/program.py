"""Programs that run notebooks by themselves, against a cluster whose proxies are killed under them.

A cell of `counted_cell` prints numbered lines until the killer says that it has killed, and some
more; a side file says how often each cell ran and how many lines it printed by its own account.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from support.cluster import Cluster, clean_env
from support.processes import ManagedProcess, wait_until

#: For one cell: a proxy has to be found, killed and come back on a machine busy with much else.
CELL_SECONDS = 120.0
#: Lines that a cell prints after its kill.
AFTER = 40


def gateway_env(cluster: Cluster, **more: str) -> dict[str, str]:
    """The environment of a program that runs its kernels behind ``cluster``."""
    return clean_env(
        JUPYTER_GATEWAY_URL=cluster.proxy_urls[0],
        HOLDFAST_GATEWAY_URLS=",".join(cluster.proxy_urls[1:]),
        JUPYTER_GATEWAY_AUTH_TOKEN=cluster.token,
        **more,
    )


def notebook_of(*sources: str) -> nbformat.NotebookNode:
    """A Python notebook with these cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    return notebook


def stdout_of(cell: Any) -> str:
    return "".join(o["text"] for o in cell.outputs if o.get("name") == "stdout")


def stderr_of(cell: Any) -> str:
    return "".join(o["text"] for o in cell.outputs if o.get("name") == "stderr")


@dataclass(frozen=True)
class Course:
    """A notebook of ``cells`` counted cells; its files are in ``folder``."""

    folder: Path
    cells: int

    @property
    def side(self) -> Path:
        return self.folder / "side"

    def begun(self, number: int) -> Path:
        return self.folder / f"begun-{number}"

    def go(self, number: int) -> Path:
        return self.folder / f"go-{number}"

    def notebook(self) -> nbformat.NotebookNode:
        return notebook_of(*(self._cell(number) for number in range(self.cells)))

    def _cell(self, number: int) -> str:
        return (
            "import os, time\n"
            f"open({str(self.side)!r}, 'a').write('ran {number}\\n')\n"
            "line, left = 0, None\n"
            f"end = time.monotonic() + {CELL_SECONDS}\n"
            "while left != 0 and time.monotonic() < end:\n"
            f"    print('{number}:%d' % line, flush=True)\n"
            "    line += 1\n"
            "    if line == 5:\n"
            f"        open({str(self.begun(number))!r}, 'w').close()\n"
            f"    if left is None and os.path.exists({str(self.go(number))!r}):\n"
            f"        left = {AFTER}\n"
            "    left = left and left - 1\n"
            "    time.sleep(0.01)\n"
            "assert left == 0, 'nobody killed a proxy'\n"
            f"open({str(self.side)!r}, 'a').write('lines {number} %d\\n' % line)\n"
        )

    def check(self, notebook: Any) -> int:
        """Every cell ran once, in order, and shows each of its lines once, in order, and nothing
        else; returns the number of lines."""
        wanted: list[str] = []
        counts: dict[int, int] = {}
        for words in map(str.split, self.side.read_text().splitlines()):
            if words[0] == "lines":
                counts[int(words[1])] = int(words[2])
                wanted += [f"ran {words[1]}", " ".join(words)]
        assert self.side.read_text().splitlines() == wanted
        assert list(counts) == list(range(self.cells))
        cells = [cell for cell in notebook.cells if not cell.metadata.get("tags")]
        assert len(cells) == self.cells
        for number, cell in enumerate(cells):
            expected = [f"{number}:{line}" for line in range(counts[number])]
            assert stdout_of(cell).splitlines() == expected, f"cell {number}"
            assert stderr_of(cell) == "", f"cell {number}"
        return sum(counts.values())


class Killer:
    """Kills the proxy that carries the program's stream, once in each cell."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.kills = 0

    def follow(self, course: Course, pid: int, program: ManagedProcess | None = None) -> None:
        """Kill in every cell of ``course``, which process ``pid`` runs."""
        for number in range(course.cells):

            def begun(number: int = number) -> bool:
                if program is not None:
                    assert program.alive, f"the program ended in cell {number}:\n{program.tail()}"
                return course.begun(number).exists()

            wait_until(begun, seconds=CELL_SECONDS, what=f"cell {number} begins")
            self.kill_carrier(pid)
            course.go(number).touch()
        self.restore()

    def kill_carrier(self, pid: int) -> None:
        """Kill the one that carries ``pid``'s stream, while another one is ready."""
        self.restore(but_one=True)
        time.sleep(random.uniform(0, 0.05))  # the moment in the cell is to be any
        carrier = self._cluster.carrier(pid)
        self._cluster.proxies[carrier].signal(signal.SIGKILL)
        self._cluster.proxies[carrier].wait(10)
        self._cluster.start_proxy(carrier, wait=False)
        self._last = carrier
        self.kills += 1

    def restore(self, *, but_one: bool = False) -> None:
        """Wait until the proxies are ready, or all but the one that was killed last."""
        for n in range(len(self._cluster.proxies)):
            if not (but_one and self.kills and n == self._last):
                self._cluster.wait_proxy(n)


def kills_wanted(least: int) -> int:
    return int(os.environ.get("HOLDFAST_KILLS", str(least)))
