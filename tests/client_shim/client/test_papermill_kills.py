"""A papermill run during which proxies are killed, one in each cell: nothing lost or doubled."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
import pytest

from support.cluster import Cluster
from support.figures import keep
from support.processes import ManagedProcess
from support.program import CELL_SECONDS, Course, Killer, gateway_env, kills_wanted

pytestmark = [pytest.mark.long, pytest.mark.e2e]

KILLS = kills_wanted(10)


@pytest.mark.timeout(180 + 30 * KILLS)
def test_papermill_while_proxies_are_killed(cluster: Cluster, tmp_path: Path) -> None:
    course = Course(tmp_path, KILLS)
    source, result = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(course.notebook(), source)
    command = [
        sys.executable, "-m", "papermill", "--engine", "holdfast", "--no-progress-bar",
        str(source), str(result),
    ]  # fmt: skip
    papermill = ManagedProcess(
        "papermill", command, log=tmp_path / "papermill.log", env=gateway_env(cluster)
    )
    begun = time.monotonic()
    papermill.start()
    try:
        killer = Killer(cluster)
        killer.follow(course, papermill.pid, papermill)
        assert papermill.wait(CELL_SECONDS) == 0, papermill.tail()
    finally:
        papermill.stop()
    lines = course.check(nbformat.read(result, as_version=4))
    assert killer.kills == KILLS
    keep(
        {
            "figure": "papermill while proxies are killed", "cells": course.cells,
            "kills": killer.kills, "lines": lines, "lost": 0, "doubled": 0,
            "seconds": round(time.monotonic() - begun),
        }
    )  # fmt: skip
