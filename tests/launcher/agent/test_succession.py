"""A keeper falls and its kernel does not: who takes over, over an engine in memory.

The kernel is a process of the test's own, because living is what the decision is about.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from launcher_process import until
from test_agent_steps import Bench, K

from holdfast_launcher.agent.adoption import scan
from holdfast_launcher.agent.succession import TakeoverBudget, find_successor, take_turn
from holdfast_launcher.errors import NonceMismatch, NotReady
from holdfast_launcher.processes import ProcessId, machine_boot_id
from holdfast_protocol.fencing import Token


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.agent.start()
    yield made
    await made.agent.close()


@pytest.fixture
async def kernel() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
    )
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


def record(directory: Path, pid: int, *, nonce: str = "one") -> None:
    """What keeper and kernel leave on disk for a kernel that runs."""
    process = ProcessId.of(pid)
    assert process is not None
    (directory / "kernel").mkdir(exist_ok=True)
    running = {"incarnation": 1, "pid": pid, "start_time": process.start_time}
    (directory / "kernel" / "incarnation.json").write_text(json.dumps(running))
    launch = {"kernel_id": K, "nonce": nonce, "pid": 1, "start_time": 0}
    launch["machine_boot_id"] = machine_boot_id()
    (directory / "launch.json").write_text(json.dumps(launch))


async def started(bench: Bench, kernel: asyncio.subprocess.Process) -> None:
    await bench.put(env={"KERNEL_X": "1"}, path="a.ipynb")
    record(bench.config.kernels / K, kernel.pid)


async def test_the_next_keeper_is_told_what_the_first_was(
    bench: Bench, kernel: asyncio.subprocess.Process
) -> None:
    await started(bench, kernel)
    bench.engine.keepers[0].fall()
    assert bench.agent.beat()[K]["alive"] is True
    with pytest.raises(NotReady, match="the keeper fell; another one is taking over"):
        bench.agent.get(K)
    await until(lambda: _true(bench.news == 1), what="the proxies are told at once")
    first, second = bench.engine.configs
    assert second.adopt
    assert not first.adopt
    same = ("kernel_id", "nonce", "credential", "spec", "user", "env", "path", "state_dir")
    assert [getattr(second, name) for name in same] == [getattr(first, name) for name in same]
    handle = bench.agent.get(K)
    assert (handle["alive"], handle["reason"], handle["engine_handle"]["pid"]) == (True, None, 2)
    assert bench.engine.ended == [], "the kernel was left alone"


async def test_three_times_in_ten_minutes_and_not_a_fourth(
    bench: Bench, kernel: asyncio.subprocess.Process
) -> None:
    await started(bench, kernel)
    for number in range(3):
        bench.engine.keepers[number].fall()
        await until(
            lambda wanted=number + 2: _true(len(bench.engine.keepers) == wanted), what="one more"
        )  # type: ignore[misc]  # binds the loop's value
        await until(lambda: _true(bench.agent.beat()[K]["reason"] is None), what="it is there")
    bench.engine.keepers[3].fall()
    assert bench.agent.get(K)["reason"] == "the keeper fell"
    await until(lambda: _true(bench.engine.ended == [K]), what="the kernel is ended")
    assert len(bench.engine.keepers) == 4


def test_the_budget_is_of_any_ten_minutes() -> None:
    budget = TakeoverBudget(limit=3, seconds=600)
    assert [budget.spend(at) for at in (0, 1, 2, 599.9, 600, 600.5, 601)] == [
        True, True, True, False, True, False, True,
    ]  # fmt: skip


async def test_a_launcher_that_falls_with_its_keepers_does_not_count_anew(
    bench: Bench, kernel: asyncio.subprocess.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_launcher.agent.agent._SECOND_LOOK", 0.0)
    await started(bench, kernel)
    for number in range(3):
        bench.agent._kernels.clear()  # as another launcher begins
        await bench.agent._take_in()
        await until(
            lambda wanted=number + 2: _true(len(bench.engine.keepers) == wanted), what="one more"
        )  # type: ignore[misc]  # binds the loop's value
    bench.agent._kernels.clear()
    await bench.agent._take_in()
    assert bench.agent.beat()[K]["alive"] is False
    await until(lambda: _true(bench.engine.ended == [K]), what="the kernel is ended")
    assert len(bench.engine.keepers) == 4


def test_a_damaged_note_costs_no_takeover(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"at": 3}', '{"at": ["x", null, 1e30]}'):
        (tmp_path / "takeovers.json").write_text(text)
        assert take_turn(tmp_path, TakeoverBudget(), 1000.0)
    assert take_turn(tmp_path, TakeoverBudget(), 1001.0)
    noted = json.loads((tmp_path / "takeovers.json").read_text())
    assert noted == {"at": [1000.0, 1001.0]}


async def test_a_launcher_without_descriptors_tries_again(
    bench: Bench, kernel: asyncio.subprocess.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_launcher.agent.takeover.TRY_AGAIN", 0.0)
    await started(bench, kernel)
    bench.engine.lacking = OSError(24, "Too many open files")
    bench.engine.keepers[0].fall()
    await until(lambda: _true(bench.engine.refusals >= 3), what="it tries")
    assert bench.agent.beat()[K]["alive"] is True, "the kernel lives"
    bench.engine.lacking = None
    await until(lambda: _true(bench.agent.beat()[K]["reason"] is None), what="it is there")
    assert len(bench.engine.keepers) == 2
    assert bench.engine.ended == []


async def test_when_nobody_can_take_over_the_kernel_is_ended_and_why_is_said(
    bench: Bench, kernel: asyncio.subprocess.Process
) -> None:
    await started(bench, kernel)
    bench.engine.failure = "no more disk"
    bench.engine.keepers[0].fall()
    await until(lambda: _true(bench.engine.ended == [K]), what="the kernel is ended")
    assert bench.agent.get(K)["reason"] == "the keeper fell; none could take over: no more disk"
    assert bench.news == 1
    bench.engine.failure = None
    assert (await bench.put())["alive"] is False, "it had run: not started again as if it had not"


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


async def test_on_a_full_disk_a_takeover_waits_for_room(
    bench: Bench, kernel: asyncio.subprocess.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel lives, and nothing about it is wrong."""
    monkeypatch.setattr("holdfast_launcher.agent.takeover.TRY_AGAIN", 0.0)
    await started(bench, kernel)
    tries: list[int] = []
    with monkeypatch.context() as full:
        full.setattr("holdfast_launcher.agent.succession.write_json", full_disk)
        full.setattr("holdfast_launcher.agent.endings.write_json", full_disk)

        def refuse(*_: object) -> None:
            tries.append(1)
            full_disk()

        full.setattr("holdfast_launcher.agent.succession.write_private", refuse)
        bench.engine.keepers[0].fall()
        await until(lambda: _true(len(tries) >= 3 or bool(bench.engine.ended)), what="it tries")
        assert bench.agent.beat()[K]["alive"] is True
    await until(lambda: _true(bench.agent.beat()[K]["reason"] is None), what="it is there")
    assert bench.engine.ended == []


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_full_disk_leaves_no_kernel_unwatched(
    bench: Bench,
    kernel: asyncio.subprocess.Process,
    monkeypatch: pytest.MonkeyPatch,
    recorded: bool,
) -> None:
    """Its death cannot be written down; it is said all the same, and its kernel is ended."""
    await started(bench, kernel)
    if not recorded:  # nobody is asked to take over
        (bench.config.kernels / K / "kernel" / "incarnation.json").unlink()
    bench.engine.failure = "the keeper ended at its start"
    monkeypatch.setattr("holdfast_launcher.agent.endings.write_json", full_disk)
    bench.engine.keepers[0].fall()
    await until(lambda: _true(bench.engine.ended == [K]), what="the kernel is ended")
    assert (bench.agent.beat()[K]["alive"], bench.news) == (False, 1)


async def test_a_launcher_begins_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs may have filled it; keepers and kernels that live must not be left alone for that."""
    monkeypatch.setattr("holdfast_launcher.agent.agent.write_private", full_disk)
    made = Bench(tmp_path)
    await made.agent.start()
    assert made.agent.beat() == {}
    await made.agent.close()


async def test_a_delete_while_another_comes_up_ends_that_one(
    bench: Bench, kernel: asyncio.subprocess.Process
) -> None:
    await started(bench, kernel)
    bench.engine.gate.clear()
    bench.engine.entered.clear()
    bench.engine.keepers[0].fall()
    await bench.engine.entered.wait()
    deleting = asyncio.create_task(bench.delete())
    bench.engine.gate.set()
    assert await deleting == {"gone": True}
    assert [keeper.alive for keeper in bench.engine.keepers] == [False, False]
    assert bench.engine.ended == [K]


async def test_a_delete_that_comes_first_leaves_nothing_to_take_over(
    bench: Bench, kernel: asyncio.subprocess.Process
) -> None:
    await started(bench, kernel)
    async with bench.agent._locks.of(K):
        deleting = asyncio.create_task(bench.agent.delete(K, Token(1, 10)))
        await until(lambda: _true(bool(bench.agent._locks.of(K)._waiters)), what="it waits")
        bench.engine.keepers[0].fall()
    assert await deleting == {"gone": True}
    with pytest.raises(NonceMismatch):
        await bench.put()  # behind the takeover in the lock's line
    assert len(bench.engine.keepers) == 1


async def test_what_cannot_be_taken_over(kernel: asyncio.subprocess.Process, bench: Bench) -> None:
    """Each reason by itself; with none of them there is a successor."""
    await started(bench, kernel)
    directory = bench.config.kernels / K

    def found() -> bool:
        return find_successor(directory, nonce="one") is not None

    assert found()
    for name in ("config.json", "launch.json", "kernel/incarnation.json"):
        kept = (directory / name).read_text()
        (directory / name).write_text("{")
        assert not found(), name
        (directory / name).write_text(kept)
    assert find_successor(directory, nonce="two") is None
    (directory / "evidence.json").write_text("{}")
    assert not found(), "its death was told"
    (directory / "evidence.json").unlink()
    assert found()
    kernel.kill()
    await kernel.wait()
    assert not found(), "the kernel is gone"


async def test_after_a_restart_of_the_launcher(
    bench: Bench,
    kernel: asyncio.subprocess.Process,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The keeper fell while no launcher was there; what it was told is on disk."""
    monkeypatch.setattr("holdfast_launcher.agent.agent._SECOND_LOOK", 0.01)
    await started(bench, kernel)
    (tmp_path / "state" / "kernels" / K / "config.json").stat()
    bench.agent._kernels.clear()  # as another launcher begins
    await bench.agent._take_in()
    assert bench.agent.beat()[K]["alive"] is True
    with pytest.raises(NotReady):
        bench.agent.get(K)
    await until(lambda: _true(len(bench.engine.keepers) == 2), what="a keeper was launched")
    await until(lambda: _true(bench.agent.beat()[K]["reason"] is None), what="it is there")
    assert bench.engine.configs[1].adopt
    assert bench.engine.ended == []


async def test_a_file_of_the_keeper_before_is_not_taken_for_the_new_ones(
    bench: Bench, kernel: asyncio.subprocess.Process
) -> None:
    """The launcher was killed while a successor came up: launch.json is its already."""
    await started(bench, kernel)
    directory = bench.config.kernels / K
    launch = json.loads((directory / "launch.json").read_text()) | {"pid": os.getpid()}
    (directory / "launch.json").write_text(json.dumps(launch))
    (found,) = (await scan(bench.config.kernels, bench.engine)).found
    assert found.file is None
    assert found.begun


async def _true(value: bool) -> bool:
    return value
