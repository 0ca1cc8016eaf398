"""What holds for every test: nothing that the session started may outlive it."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

#: Every process that descends from this session has it in its environment, re-parented or not.
#: (Not HOLDFAST_…: tests take those out of what their children inherit.)
MARK = "PYTEST_SESSION_MARK"
#: Seconds that processes which are on their way out get.
GRACE = 5.0


def _is_helper(process: psutil.Process) -> bool:
    """Python's own resource tracker, which lives as long as the interpreter that started it."""
    with suppress(psutil.Error):
        return any("resource_tracker" in part for part in process.cmdline())
    return True


def _marked(mark: str) -> list[psutil.Process]:
    """Living processes of this session: its descendants, and orphans that carry its mark."""
    me = psutil.Process()
    found = {process.pid: process for process in me.children(recursive=True)}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != me.pid and process.environ().get(MARK) == mark:
                found[process.pid] = process
    return [process for process in found.values() if _lives(process) and not _is_helper(process)]


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _describe(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.pid}: {' '.join(process.cmdline())[:160]}"
    return str(process.pid)


@pytest.fixture(scope="session", autouse=True)
def children_hear_ctrl_c() -> None:
    """A shell that runs the suite in the background has SIGINT ignored, and children inherit that:
    no test of Ctrl-C could pass. A handler here means the default in what is executed."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail at the end when a child, a keeper or a kernel of the session still runs; end it."""
    mark = os.environ.setdefault(MARK, uuid.uuid4().hex)
    yield
    left = _marked(mark)
    psutil.wait_procs(left, timeout=GRACE)
    left = [process for process in left if _lives(process)]
    names = [_describe(process) for process in left]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=GRACE)
    assert not names, "the tests left processes behind:\n" + "\n".join(names)
