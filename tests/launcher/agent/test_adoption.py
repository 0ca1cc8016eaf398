"""The launcher's own death and return: keepers live on and are found again, strangers are not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from launcher_process import LauncherProcess, keeper_call, new_id, proc, process_of, until

from holdfast_launcher.environment import MARK, kernel_mark
from holdfast_launcher.processes import ProcessId, marked

_SLEEP = ["/bin/sleep", "600"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_keepers_and_kernels_outlive_the_launcher_and_are_adopted(
    own_launcher: LauncherProcess, how: signal.Signals
) -> None:
    own_launcher.start()
    kernel_id = new_id()
    before = (await own_launcher.put(kernel_id)).body
    kernel = ProcessId.of((await keeper_call(before, "POST", "/v1/start")).body["pid"])
    zygote = _zygote(own_launcher, before)
    own_launcher.process.signal(how)
    code = own_launcher.process.wait(10)
    assert code == (0 if how == signal.SIGTERM else -signal.SIGKILL)
    own_launcher.start()
    assert (await own_launcher.get(kernel_id)).body == before, "known from the first answer on"
    await own_launcher.wait_log("keeper adopted")
    assert (await own_launcher.put(kernel_id)).body == before
    assert kernel is not None
    assert kernel.running
    await _until_gone(zygote)
    # Not our child any more, and its death is seen all the same.
    process_of(before).send(signal.SIGKILL)
    gone = await own_launcher.wait_dead(kernel_id)
    assert "not known" in gone["reason"]
    await _until_gone(kernel)


async def test_a_reused_pid_is_nobody(own_launcher: LauncherProcess) -> None:
    """A living process that has the keeper's pid but another start time is left alone."""
    own_launcher.start()
    kernel_id = new_id()
    handle = (await own_launcher.put(kernel_id)).body
    own_launcher.process.kill()
    process_of(handle).send(signal.SIGKILL)
    await _until_gone(process_of(handle))
    with subprocess.Popen(_SLEEP, start_new_session=True) as bystander:  # noqa: ASYNC220 - its pid is taken
        try:
            _change(own_launcher, kernel_id, "launch.json", pid=bystander.pid)
            _change(
                own_launcher,
                kernel_id,
                "keeper.json",
                pid=bystander.pid,
                kernel_pid=bystander.pid,
                kernel_pgid=bystander.pid,
                kernel_start_time=1,
            )
            own_launcher.start()
            reply = await own_launcher.get(kernel_id)
            assert reply.body["alive"] is False
            assert reply.body["credential"] is None
            assert (await own_launcher.delete(kernel_id)).body == {"gone": True}
            assert bystander.poll() is None
        finally:
            bystander.kill()


async def test_another_boot_of_the_machine_is_evidence(own_launcher: LauncherProcess) -> None:
    own_launcher.start()
    kernel_id = new_id()
    handle = (await own_launcher.put(kernel_id)).body
    own_launcher.process.kill()
    _change(own_launcher, kernel_id, "launch.json", machine_boot_id="another")
    own_launcher.start()
    assert (await own_launcher.get(kernel_id)).body["reason"] == "the machine was restarted"
    process_of(handle).send(signal.SIGKILL)  # which no real machine would leave


async def test_a_stopped_keeper_is_alive_and_adopted_when_it_wakes(
    own_launcher: LauncherProcess,
) -> None:
    own_launcher.start()
    kernel_id = new_id()
    handle = (await own_launcher.put(kernel_id)).body
    own_launcher.process.kill()
    process_of(handle).send(signal.SIGSTOP)
    own_launcher.start()
    await own_launcher.wait_log("keeper does not answer yet")
    assert (await own_launcher.get(kernel_id)).body["alive"] is True
    assert "keeper adopted" not in own_launcher.process.log.read_text()
    process_of(handle).send(signal.SIGCONT)
    await own_launcher.wait_log("keeper adopted")
    assert (await own_launcher.get(kernel_id)).body == handle


async def test_a_stopped_keeper_can_be_deleted(own_launcher: LauncherProcess) -> None:
    own_launcher.start()
    kernel_id = new_id()
    handle = (await own_launcher.put(kernel_id)).body
    process_of(handle).send(signal.SIGSTOP)
    assert (await own_launcher.delete(kernel_id)).body == {"gone": True}
    assert not process_of(handle).running


async def test_who_answers_with_another_nonce_is_not_adopted(
    own_launcher: LauncherProcess,
) -> None:
    own_launcher.start()
    mine, other = new_id(), new_id()
    handle = (await own_launcher.put(mine)).body
    stranger = (await own_launcher.put(other)).body
    own_launcher.process.kill()
    _change(
        own_launcher,
        mine,
        "keeper.json",
        endpoint=stranger["endpoint"],
        credential=stranger["credential"],
    )
    own_launcher.start()
    await own_launcher.wait_log("keeper disputed")
    assert (await own_launcher.get(mine)).body["alive"] is True, "its process lives"
    assert (await own_launcher.put(mine)).status == 503
    assert (await own_launcher.delete(mine)).body == {"gone": True}
    assert not process_of(handle).running
    assert process_of(stranger).running


async def test_a_kernel_whose_keeper_died_meanwhile_is_ended_and_told(
    own_launcher: LauncherProcess,
) -> None:
    own_launcher.start()
    kernel_id = new_id()
    handle = (await own_launcher.put(kernel_id)).body
    kernel = ProcessId.of((await keeper_call(handle, "POST", "/v1/start")).body["pid"])
    assert kernel is not None
    own_launcher.process.kill()
    process_of(handle).send(signal.SIGKILL)
    await _until_gone(process_of(handle))
    assert kernel.running
    own_launcher.start()
    body = (await own_launcher.get(kernel_id)).body
    assert (body["alive"], body["reason"]) == (
        False,
        "the keeper ended while its launcher was away",
    )
    await _until_gone(kernel)
    again = await own_launcher.put(kernel_id)
    assert again.body["alive"] is False, "that start is history"
    fresh = await own_launcher.put(kernel_id, nonce="n2")
    assert fresh.body["alive"] is True


async def test_the_reason_of_a_death_outlives_the_launcher(own_launcher: LauncherProcess) -> None:
    own_launcher.start()
    kernel_id = new_id()
    handle = (await own_launcher.put(kernel_id)).body
    process_of(handle).send(signal.SIGKILL)
    reason = (await own_launcher.wait_dead(kernel_id))["reason"]
    assert reason == "the keeper was killed by signal 9 (SIGKILL)"
    own_launcher.process.kill()
    own_launcher.start()
    assert (await own_launcher.get(kernel_id)).body["reason"] == reason


async def test_a_keeper_that_was_coming_up_when_the_launcher_died(
    own_launcher: LauncherProcess,
) -> None:
    """Nobody reads its ready pipe any more; the next launcher finds it before its keeper.json."""
    own_launcher.start()
    kernel_id = new_id()
    handle = (await own_launcher.put(kernel_id)).body
    own_launcher.process.kill()
    path = own_launcher.directory(kernel_id) / "keeper.json"
    hidden = path.with_suffix(".later")
    path.rename(hidden)
    own_launcher.start()
    early = (await own_launcher.get(kernel_id)).body
    assert (early["alive"], early["endpoint"]) == (True, None)
    hidden.rename(path)
    assert (await own_launcher.put(kernel_id)).body["endpoint"] == handle["endpoint"]


async def test_two_launchers_never_share_a_state_directory(own_launcher: LauncherProcess) -> None:
    own_launcher.start()
    second = subprocess.run(  # noqa: ASYNC221 - ends at once
        [sys.executable, "-m", "holdfast_launcher", "--config", str(own_launcher.config)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 2
    assert "another launcher runs" in second.stderr


async def test_end_kernels_leaves_nothing(own_launcher: LauncherProcess) -> None:
    own_launcher.start()
    ids = [new_id(), new_id()]
    marks = [kernel_mark(kernel_id, "n1") for kernel_id in ids]
    handles = [
        (await own_launcher.put(ids[0])).body,
        (await own_launcher.put(ids[1], env={"KERNEL_FAKE": "deaf"})).body,
    ]
    for handle in handles:
        await keeper_call(handle, "POST", "/v1/start")
    own_launcher.process.stop()
    assert all(process_of(handle).running for handle in handles)
    command = [sys.executable, "-m", "holdfast_launcher", "end-kernels", "--config"]
    began = time.monotonic()
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this loop
        [*command, str(own_launcher.config)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 30
    assert not any(process_of(handle).running for handle in handles)
    assert [marked(MARK, mark) for mark in marks] == [[], []]
    assert os.listdir(own_launcher.state / "kernels") == []


def _change(launcher: LauncherProcess, kernel_id: str, name: str, **changes: Any) -> None:
    path: Path = launcher.directory(kernel_id) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _zygote(launcher: LauncherProcess, handle: dict[str, Any]) -> ProcessId:
    children = proc(launcher.pid, f"task/{launcher.pid}/children").split()
    pids = {int(child) for child in children} - {handle["engine_handle"]["pid"]}
    found = ProcessId.of(pids.pop())
    assert found is not None
    return found


async def _until_gone(process: ProcessId | None) -> None:
    async def gone() -> bool:
        return process is None or not process.running

    await until(gone, what=f"{process} ends")
