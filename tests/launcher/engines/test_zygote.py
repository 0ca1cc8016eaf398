"""The process that keepers are forked from: what it may have open, its death, its order's fate."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast_launcher.engines.contract import LaunchFailed
from holdfast_launcher.engines.local import LocalEngine, LocalKeeper
from holdfast_launcher.engines.zygote import (
    Contaminated,
    check_clean,
    receive_message,
    send_message,
)
from holdfast_launcher.engines.zygote_link import ZygoteGone, ZygoteLink
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.processes import ProcessId
from holdfast_launcher.state.statefiles import read_json

HERE = Path(__file__).parent


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[LocalEngine]:
    made = make_engine("tiny_keeper:run")
    await made.start()
    yield made
    await made.close()
    kill_all(tmp_path)


def kill_all(tmp_path: Path) -> None:
    for path in tmp_path.glob("*/launch.json"):
        launched = read_json(path) or {}
        ProcessId(launched["pid"], launched["start_time"]).send(signal.SIGKILL)


def variables(pid: int) -> set[str]:
    """Names in a process's first environment."""
    content = Path(f"/proc/{pid}/environ").read_text()
    return {item.split("=")[0] for item in content.split("\0") if item}


def make_engine(entry: str, *, start_timeout: float = 20.0) -> LocalEngine:
    # Without a reaper: pytest's children are not all the engine's.
    return LocalEngine(entry=entry, environment=zygote_environment(), start_timeout=start_timeout)


def zygote_environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE)}


def order(tmp_path: Path, name: str, **env: str) -> KeeperConfig:
    directory = tmp_path / name
    directory.mkdir(mode=0o700)
    return KeeperConfig(
        kernel_id=name,
        nonce="n",
        spec="python3",
        user="ada",
        env=env,
        state_dir=str(directory),
        credential="secret",
    )


async def test_a_killed_zygote_is_replaced_and_keepers_live_on(
    engine: LocalEngine, tmp_path: Path
) -> None:
    first = await engine.launch(order(tmp_path, "first"))
    old = engine.zygote_pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    second = await engine.launch(order(tmp_path, "second"))
    assert engine.zygote_pid != old
    assert first.alive
    assert second.alive
    assert os.getsid(first.handle["pid"]) == first.handle["pid"]


async def test_a_zygote_that_dies_unused_is_replaced_without_being_asked(
    engine: LocalEngine, tmp_path: Path
) -> None:
    await engine.launch(order(tmp_path, "first"))
    old = engine.zygote_pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    async with asyncio.timeout(15):
        while engine.zygote_pid in (None, old):  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.01)


async def test_a_keeper_forked_by_a_zygote_that_did_not_answer_is_found(
    engine: LocalEngine, tmp_path: Path
) -> None:
    """The zygote is killed by the keeper itself, before it can answer whom it forked."""
    config = order(tmp_path, "murderer", KILL_ZYGOTE="1")
    keeper = await engine.launch(config)
    assert keeper.alive
    launched = read_json(tmp_path / "murderer" / "launch.json") or {}
    assert keeper.handle["pid"] == launched["pid"]


async def test_a_keeper_that_fails_says_why(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed, match="RuntimeError: out of luck"):
        await engine.launch(order(tmp_path, "unlucky", FAIL="out of luck"))


async def test_an_entry_that_cannot_be_imported_is_an_error_to_who_asks(tmp_path: Path) -> None:
    engine = make_engine("no_such_module:run")
    await engine.start()
    try:
        with pytest.raises(LaunchFailed, match="no_such_module"):
            await engine.launch(order(tmp_path, "any"))
    finally:
        await engine.close()


async def test_a_contaminated_zygote_refuses_to_fork(tmp_path: Path) -> None:
    engine = make_engine("dirty_keeper:run")
    await engine.start()
    try:
        with pytest.raises(LaunchFailed, match="2 threads instead of one"):
            await engine.launch(order(tmp_path, "any"))
    finally:
        await engine.close()


async def test_a_keeper_holds_nothing_of_the_zygote(engine: LocalEngine, tmp_path: Path) -> None:
    """No socket to the launcher, so that the launcher's end reaches the zygote and only it."""
    keeper = await engine.launch(order(tmp_path, "clean"))
    pid = keeper.handle["pid"]
    links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert links.pop("0") == "/dev/null"
    assert links.pop("1") == links.pop("2") == str(tmp_path / "clean" / "keeper.log")
    assert links.keys() <= {"3"}, "the ready pipe, until the keeper has closed it"
    assert os.environ.keys() - {"PATH", "PYTHONPATH", "LC_CTYPE"}, "else this shows nothing"
    assert variables(pid) - {"LC_CTYPE"} == {"PATH", "PYTHONPATH"}


async def test_the_zygote_ends_with_its_launcher(tmp_path: Path) -> None:
    engine = make_engine("tiny_keeper:run")
    await engine.start()
    keeper = await engine.launch(order(tmp_path, "left"))
    zygote = ProcessId.of(engine.zygote_pid or 0)
    assert zygote is not None
    await engine.close()
    async with asyncio.timeout(10):
        while zygote.running:  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.01)
    assert keeper.alive
    keeper.kill()
    assert await keeper.wait_gone(timeout=10)


async def test_find_knows_a_keeper_by_pid_and_start_time(
    engine: LocalEngine, tmp_path: Path
) -> None:
    keeper = await engine.launch(order(tmp_path, "known"))
    found = await engine.find(tmp_path / "known")
    assert isinstance(found, LocalKeeper)
    assert found.handle == keeper.handle
    calls: list[str] = []
    found.on_gone(lambda: calls.append("gone"))
    keeper.kill()
    assert await found.wait_gone(timeout=10)
    assert calls == ["gone"]
    assert (found.alive, found.reason) == (False, "the keeper ended, how is not known")
    assert await engine.find(tmp_path / "known") is None
    assert await engine.find(tmp_path / "never") is None


def test_check_clean_sees_a_thread() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with pytest.raises(Contaminated, match="threads"):
            check_clean(allowed=set(range(256)))
    finally:
        release.set()
        thread.join()


@pytest.mark.parametrize(
    ("opening", "words"),
    [
        ("import asyncio; asyncio.set_event_loop(asyncio.new_event_loop())", "event loop"),
        ("import zmq; zmq.Context.instance()", "ZMQ context"),
        ("import os; os.dup(1)", "descriptors"),
        ("", "clean"),
    ],
)
def test_check_clean_sees_what_is_open(opening: str, words: str) -> None:
    """In a process of its own: this one has all of that open."""
    script = (
        "from holdfast_launcher.engines.zygote import check_clean\n"
        f"{opening}\n"
        "try:\n    check_clean(allowed={0, 1, 2})\n    print('clean')\n"
        "except Exception as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert words in done.stdout


def test_messages_carry_any_length_and_descriptors() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull, "rb") as null:
        value = {"text": "é" * 100_000}
        sender = threading.Thread(target=send_message, args=(ours, value, (null.fileno(),)))
        sender.start()
        received = receive_message(theirs)
        sender.join()
        assert received is not None
        assert received[0] == value
        assert os.fstat(received[1][0]).st_rdev == os.fstat(null.fileno()).st_rdev
        os.close(received[1][0])
        ours.close()
        assert receive_message(theirs) is None


async def test_a_keeper_that_never_becomes_ready_is_killed(tmp_path: Path) -> None:
    engine = make_engine("tiny_keeper:run", start_timeout=0.5)
    await engine.start()
    try:
        with pytest.raises(LaunchFailed, match=r"not ready after 0\.5 s"):
            await engine.launch(order(tmp_path, "slow", HANG="1"))
        launched = read_json(tmp_path / "slow" / "launch.json") or {}
        assert not ProcessId(launched["pid"], launched["start_time"]).running
    finally:
        await engine.close()
        kill_all(tmp_path)


async def test_a_link_closed_in_the_middle_of_an_order_says_gone() -> None:
    """Its death is noticed on the loop while a worker thread waits for its answer."""
    link = ZygoteLink(modules=("tiny_keeper",), environment=zygote_environment())
    assert link.process is not None
    try:
        await asyncio.to_thread(link.wait_ready, timeout=20)
        link.process.send(signal.SIGSTOP)
        read_end, write_end = os.pipe()
        order = asyncio.create_task(asyncio.to_thread(link.fork, {}, write_end, timeout=20))
        async with asyncio.timeout(10):
            while not link._users:  # noqa: ASYNC110 - another thread's doing
                await asyncio.sleep(0)
        link.close()
        with pytest.raises(ZygoteGone):
            await order
        assert link._socket.fileno() == -1
        with pytest.raises(ZygoteGone):
            link.fork({}, write_end, timeout=1)
        os.close(read_end)
        os.close(write_end)
    finally:
        link.kill()
        await asyncio.to_thread(os.waitpid, link.pid, 0)
