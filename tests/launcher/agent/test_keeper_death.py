"""A keeper's death: seen at once, its kernel ended, the evidence kept."""

from __future__ import annotations

import os
import signal

from launcher_process import LauncherProcess, keeper_call, new_id, process_of, until, wait_gone

from holdfast_launcher.environment import MARK, kernel_mark
from holdfast_launcher.processes import ProcessId, marked


async def test_no_kernel_outlives_its_keeper(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    handle = (await launcher.put(kernel_id)).body
    kernel = ProcessId.of((await keeper_call(handle, "POST", "/v1/start")).body["pid"])
    assert kernel is not None
    process_of(handle).send(signal.SIGKILL)
    body = await launcher.wait_dead(kernel_id)
    assert body["reason"] == "the keeper was killed by signal 9 (SIGKILL)"
    assert body["credential"] is None
    await wait_gone(kernel)


async def test_a_kernel_that_no_file_names_yet_is_found(launcher: LauncherProcess) -> None:
    """Started an instant before its keeper was killed."""
    kernel_id = new_id()
    handle = (await launcher.put(kernel_id)).body
    reply = await keeper_call(handle, "POST", "/v1/start", body={"write": False})
    kernel = ProcessId.of(reply.body["pid"])
    assert kernel is not None
    process_of(handle).send(signal.SIGKILL)
    await launcher.wait_dead(kernel_id)
    await wait_gone(kernel)
    assert (await launcher.delete(kernel_id)).body == {"gone": True}
    assert marked(MARK, kernel_mark(kernel_id, "n1")) == []


async def test_the_next_incarnation_follows_a_dead_one(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    first = (await launcher.put(kernel_id, nonce="one")).body
    process_of(first).send(signal.SIGKILL)
    await launcher.wait_dead(kernel_id)
    assert (await launcher.put(kernel_id, nonce="one")).body["alive"] is False
    second = (await launcher.put(kernel_id, nonce="two")).body
    assert second["alive"] is True
    assert second["credential"] != first["credential"]


async def test_the_launcher_leaves_no_zombie(launcher: LauncherProcess) -> None:
    """Neither of a keeper nor of the orphans that it leaves to its launcher."""
    handle = (await launcher.put(new_id())).body
    kernel_pid = (await keeper_call(handle, "POST", "/v1/start")).body["pid"]
    process_of(handle).send(signal.SIGKILL)
    await launcher.wait_dead(handle["kernel_id"])

    async def reaped() -> bool:
        pids = {str(handle["engine_handle"]["pid"]), str(kernel_pid)}
        return not pids.intersection(os.listdir("/proc"))  # where a zombie still is

    await until(reaped, what="keeper and kernel are reaped")
