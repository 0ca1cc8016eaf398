"""The launcher with the real keeper and a real ipykernel."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from launcher_process import LauncherProcess, keeper_call, new_id, proc, process_of, wait_gone

from holdfast_launcher.config import KEEPER_ENTRY
from holdfast_launcher.environment import MARK, kernel_mark
from holdfast_launcher.processes import ProcessId, marked


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LauncherProcess]:
    process = LauncherProcess(tmp_path_factory.mktemp("real"), entry=KEEPER_ENTRY)
    try:
        process.start()
        yield process
    finally:
        asyncio.run(process.end())


async def test_start_restart_of_the_launcher_and_delete(real: LauncherProcess) -> None:
    kernel_id = new_id()
    handle = (await real.put(kernel_id, env={"KERNEL_TOPIC": "tides"})).body
    started = await keeper_call(handle, "POST", "/v1/start", body={"nonce": "n1"})
    assert started.status == 200, started.body
    kernel = ProcessId.of(started.body["pid"])
    assert kernel is not None
    environment = proc(kernel.pid, "environ").split("\0")
    assert "KERNEL_TOPIC=tides" in environment
    assert not [item for item in environment if handle["credential"] in item]
    real.process.kill()
    real.start()
    await real.wait_log("keeper adopted")
    assert (await real.put(kernel_id)).body == handle
    state = await keeper_call(handle, "GET", "/v1/kernel")
    assert state.body["pid"] == kernel.pid
    assert (await real.delete(kernel_id)).body == {"gone": True}
    assert not kernel.running
    assert not process_of(handle).running
    assert marked(MARK, kernel_mark(kernel_id, "n1")) == []


async def test_the_kernel_ends_with_its_keeper(real: LauncherProcess) -> None:
    kernel_id = new_id()
    handle = (await real.put(kernel_id)).body
    started = await keeper_call(handle, "POST", "/v1/start", body={"nonce": "n1"})
    kernel = ProcessId.of(started.body["pid"])
    assert kernel is not None
    process_of(handle).send(signal.SIGKILL)
    assert "SIGKILL" in (await real.wait_dead(kernel_id))["reason"]
    await wait_gone(kernel)
    await real.delete(kernel_id)


async def test_a_keeper_by_fork_is_light(real: LauncherProcess) -> None:
    """It shares the zygote's pages: what is its own is a small part of what it maps."""
    handle = (await real.put(new_id())).body
    rollup = proc(handle["engine_handle"]["pid"], "smaps_rollup").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
    private = kib["Private_Dirty"] + kib["Private_Clean"]
    print(f"keeper: {private} KiB private of {kib['Rss']} KiB resident")
    assert private < kib["Rss"] / 2
    await real.delete(handle["kernel_id"])
