"""Kernels that fail to start, crash, and are ended in the middle of things."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import zmq

from holdfast_launcher.keeper.kernel.incarnation import Incarnation
from holdfast_launcher.keeper.kernel.launch import KernelLaunch, working_directory
from holdfast_launcher.keeper.ports import KernelStartFailed
from holdfast_protocol.errors import InvalidState


async def test_a_crash_is_seen_at_once_and_survived(bench, running_host, cell):
    """Last words come first, then the end with its reason, then the next incarnation."""
    bench.fake_spec()
    running = await running_host(bench, spec="fake")
    host, recorder = running.host, running.recorder
    pid = host.info().pid
    request = cell("exit 3")
    host.send("one", request)
    host.send("one", cell("say never"))
    began = time.monotonic()
    await recorder.until(lambda: not psutil.pid_exists(pid) or recorder.kinds()[1:])
    await recorder.until(lambda: len(recorder.kinds()) == 3)
    assert time.monotonic() - began < 10
    assert recorder.kinds() == [
        ("ready", 1),
        ("ended", 1, "restarting", "the kernel process exited with code 3"),
        ("ready", 2),
    ]
    said = [
        s if s[0] == "ended" else s[-1].content_dict().get("text")
        for s in recorder.said
        if s[0] in ("ended", "published")
    ]
    assert said.index("last words") < said.index(recorder.kinds()[1])
    assert "never" not in said
    hello = cell("say hello")
    await running.run(hello)
    assert recorder.text(hello) == "hello"
    assert host.info().incarnation == 2


async def test_too_many_crashes_are_dead_with_the_reason(bench, running_host, cell):
    bench.fake_spec()
    running = await running_host(bench, spec="fake", autorestart_limit=1)
    host, recorder = running.host, running.recorder
    host.send("one", cell("kill"))
    await recorder.until(lambda: ("ready", 2) in recorder.said)
    host.send("one", cell("kill"))
    await recorder.until(lambda: recorder.kinds()[-1][:3] == ("ended", 2, "dead"))
    info = host.info()
    assert info.execution_state == "dead"
    assert info.reason is not None
    assert "SIGKILL (perhaps it ran out of memory)" in info.reason
    assert "restarted 1 times" in info.reason
    with pytest.raises(InvalidState):
        await host.interrupt()
    await host.restart()  # somebody who asks may bring it back
    assert recorder.kinds()[-1] == ("ready", 3)
    assert (host.info().execution_state, host.info().reason) == ("idle", None)


async def test_a_crash_of_ipykernel_is_noticed_promptly(bench, running_host):
    running = await running_host(bench, autorestart_limit=0)
    host, recorder = running.host, running.recorder
    began = time.monotonic()
    os.kill(host.info().pid, signal.SIGSEGV)
    await recorder.until(lambda: recorder.kinds()[1:])
    assert time.monotonic() - began < 2
    assert recorder.kinds()[1] == (
        "ended",
        1,
        "dead",
        "the kernel process was killed by SIGSEGV",
    )


async def test_a_failed_start_shows_the_last_lines(bench, recorder):
    code = "import sys; print('no module named universe', file=sys.stderr); sys.exit(7)"
    bench.spec("broken", [sys.executable, "-c", code])
    host = bench.host(recorder, spec="broken")
    with pytest.raises(KernelStartFailed, match="code 7") as failed:
        await host.start()
    assert failed.value.output == "no module named universe"
    assert host.info().execution_state == "dead"
    assert recorder.kinds() == [("ended", 1, "dead", "the kernel process exited with code 7")]


async def test_a_program_or_spec_that_is_not_there_fails_the_start(bench, recorder):
    bench.spec("absent", ["/nonexistent/kernel", "{connection_file}"])
    for name, words in (("absent", "/nonexistent/kernel"), ("nowhere", "no kernelspec")):
        with pytest.raises(KernelStartFailed, match=words):
            await bench.host(recorder, spec=name).start()


async def test_a_kernel_that_never_answers_is_given_up(bench, recorder):
    bench.spec("mute", [sys.executable, "-c", "import time; time.sleep(300)"])
    host = bench.host(recorder, spec="mute", start_timeout=0.5)
    with pytest.raises(KernelStartFailed, match=r"did not answer within 0\.5 s"):
        await host.start()
    assert host.info().pid is None


async def test_shutdown_cuts_a_start_short(bench, recorder):
    bench.spec("mute", [sys.executable, "-c", "import time; time.sleep(300)"])
    host = bench.host(recorder, spec="mute")
    start = asyncio.create_task(host.start())
    pid = await recorder.until(lambda: host.info().pid)
    await host.shutdown(now=True)
    with pytest.raises(KernelStartFailed, match="shut down"):
        await start
    assert not psutil.pid_exists(pid)


async def test_a_caller_that_goes_away_does_not_undo_the_start(bench, recorder):
    bench.fake_spec()
    host = bench.host(recorder, spec="fake")
    start = asyncio.create_task(host.start())
    pid = await recorder.until(lambda: host.info().pid)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await host.start()  # the retry waits for the same start
    assert host.info().pid == pid
    assert recorder.kinds() == [("ready", 1)]


ADOPT = """
import asyncio, sys
from holdfast_protocol.jupyter import Message
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.keeper.kernel import build_kernel_host
from holdfast_launcher.keeper.ports import KernelListener

said = asyncio.Event()

class Silent(KernelListener):
    def published(self, v1, message):
        if b'"in' in message.content: said.set()
    def answered(self, session_id, v1, message): pass
    def lost(self, count, reason): pass
    def incarnation_ended(self, incarnation, state, reason): pass
    def incarnation_ready(self, incarnation): pass
    def state_changed(self): pass

async def main():
    host = build_kernel_host(KeeperConfig.from_json(sys.argv[1]), Silent())
    await host.start()
    if sys.argv[2]:
        host.open_session("s")
        header = {"msg_id": "m", "msg_type": "execute_request", "session": "s", "version": "5.3"}
        content = {"code": sys.argv[2], "silent": False}
        host.send("s", Message.from_dicts(channel="shell", header=header, content=content))
        await said.wait()
    print(host.info().pid, flush=True)
    await asyncio.sleep(300)

asyncio.run(main())
"""


#: Code for the kernel of the keeper that dies: it tells when it runs, and goes on for long.
BUSY = "import time\nprint('in', flush=True)\ntime.sleep(60)"


def keeper_that_dies(bench, config, code: str = "") -> int:
    """Start a kernel in another process, kill that process; the kernel's pid."""
    argv = [sys.executable, "-c", ADOPT, config.to_json().decode(), code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as keeper:
        try:
            assert keeper.stdout is not None
            pid = int(next(line for line in keeper.stdout if line.strip().isdecimal()))
        finally:
            keeper.kill()
    bench.watch(pid)
    return pid


async def test_a_next_keeper_adopts_the_living_kernel(bench, running_host, cell):
    config = bench.config()
    pid = await asyncio.to_thread(keeper_that_dies, bench, config)
    assert psutil.pid_exists(pid)
    running = await running_host(bench, kernel_id=config.kernel_id, adopt=True)
    host, recorder = running.host, running.recorder
    info = host.info()
    assert (info.pid, info.incarnation) == (pid, 1)
    await recorder.until(lambda: host.info().execution_state == "idle")
    request = cell("x = 1\nprint('still here')")
    await running.run(request)
    assert recorder.text(request) == "still here\n"
    sleeping = cell("import time\nprint('in', flush=True)\ntime.sleep(60)")
    host.send("one", sleeping)
    await recorder.until(lambda: recorder.text(sleeping))
    await host.interrupt()
    assert (await recorder.done(sleeping))["ename"] == "KeyboardInterrupt"
    await host.restart()  # ends what it did not start, and starts its own
    assert recorder.kinds()[-1] == ("ready", 2)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_busy_kernel_is_adopted_busy(bench, running_host, cell):
    config = bench.config()
    pid = await asyncio.to_thread(keeper_that_dies, bench, config, BUSY)
    running = await running_host(bench, kernel_id=config.kernel_id, adopt=True)
    host = running.host
    assert (host.info().pid, host.info().execution_state) == (pid, "busy")
    assert not host._current.highwater_raised
    await host.interrupt()
    await running.recorder.until(lambda: host.info().execution_state == "idle")
    request = cell("print('next')")
    await running.run(request)
    assert running.recorder.text(request) == "next\n"
    async with asyncio.timeout(20):  # the mark is raised when the kernel has time for it
        while not host._current.highwater_raised:
            await running.run(cell("1"))
    await running.recorder.until(lambda: host.info().execution_state == "idle")


async def test_a_kernel_that_is_gone_is_not_adopted(bench, recorder):
    bench.fake_spec()
    config = bench.config(spec="fake")
    pid = await asyncio.to_thread(keeper_that_dies, bench, config)
    os.kill(pid, signal.SIGKILL)
    process = psutil.Process(pid) if psutil.pid_exists(pid) else None
    if process is not None:
        await asyncio.to_thread(psutil.wait_procs, [process], 5)
    with pytest.raises(KernelStartFailed, match="gone"):
        await bench.host(recorder, spec="fake", adopt=True).start()
    empty = str(bench.directory / "empty")
    with pytest.raises(KernelStartFailed, match="no kernel to adopt"):
        await bench.host(recorder, spec="fake", adopt=True, state_dir=empty).start()


def test_working_directory(tmp_path: Path):
    home, work = tmp_path / "home", tmp_path / "work"
    (home / "nb").mkdir(parents=True)
    work.mkdir()
    (home / "nb" / "a.ipynb").touch()
    env = {"HOME": str(home)}
    assert working_directory(None, env) == str(home)
    assert working_directory("nb/a.ipynb", env) == str(home / "nb")
    assert working_directory("nb", env) == str(home / "nb")
    assert working_directory("nb/gone/deep/b.ipynb", env) == str(home / "nb")
    assert working_directory(str(work), env) == str(work)
    assert working_directory("/elsewhere/on/another/machine.ipynb", env) == str(home)
    assert working_directory("nb", env | {"KERNEL_WORKING_DIR": str(work)}) == str(work)
    assert working_directory(None, {"HOME": "/nowhere"}) == "/"


async def test_a_full_disk_fails_a_restart_and_leaves_no_kernel_behind(
    bench, running_host, monkeypatch
):
    bench.fake_spec()
    running = await running_host(bench, spec="fake")
    host, recorder = running.host, running.recorder
    pids = []

    def full(self, launched, connection_file):
        pids.append(launched.process.pid)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(KernelLaunch, "_write_record", full)
        with pytest.raises(KernelStartFailed, match="No space left"):
            await host.restart()
    assert host.info().execution_state == "dead"
    assert "No space left" in host.info().reason
    assert [kind[2] for kind in recorder.kinds() if kind[0] == "ended"] == ["starting", "dead"]
    assert not psutil.pid_exists(pids[0])
    await host.restart()  # the disk has room again
    assert host.info().execution_state == "idle"


async def test_no_room_for_sockets_fails_a_restart_and_leaves_no_kernel_behind(
    bench, running_host, monkeypatch
):
    bench.fake_spec()
    running = await running_host(bench, spec="fake")
    host = running.host

    def none_left(self, session_id):
        raise zmq.ZMQError(errno.EMFILE)

    with monkeypatch.context() as patch:
        patch.setattr(Incarnation, "open_session", none_left)
        with pytest.raises(KernelStartFailed, match="Too many open files"):
            await host.restart()
    assert host.info().execution_state == "dead"
    assert host.info().pid is None
    await host.restart()
    assert host.info().execution_state == "idle"
