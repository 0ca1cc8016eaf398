"""The launcher's own death and return: keepers live on and are found again, strangers are not.

One launcher is killed with kernels of every kind below it, some tampered with as only a disaster
or a reused pid would; then another one starts in its state directory, and each test looks at one
kind.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from launcher_process import LauncherProcess, keeper_call, new_id, proc, process_of, until

from holdfast_launcher.environment import MARK, kernel_mark
from holdfast_launcher.processes import ProcessId, marked
from support.processes import wait_until

_KINDS = (
    *("living", "reused", "other_boot", "stopped", "strange", "orphan", "failed", "coming_up"),
    *("waking", "buried"),
)


@dataclass
class Restarted:
    """Before the restart: handles and kernels' processes by kind."""

    launcher: LauncherProcess
    bystander: subprocess.Popen[bytes]
    ids: dict[str, str] = field(default_factory=dict)
    handles: dict[str, dict[str, Any]] = field(default_factory=dict)
    kernels: dict[str, ProcessId] = field(default_factory=dict)

    async def prepare(self) -> None:
        for kind in _KINDS:
            self.ids[kind] = new_id()
            if kind != "coming_up":
                self.handles[kind] = (await self.launcher.put(self.ids[kind])).body
        for kind in ("living", "orphan"):
            reply = await keeper_call(self.handles[kind], "POST", "/v1/start")
            kernel = ProcessId.of(reply.body["pid"])
            assert kernel is not None
            self.kernels[kind] = kernel
        process_of(self.handles["failed"]).send(signal.SIGKILL)
        await self.launcher.wait_dead(self.ids["failed"])
        path = f"/v1/kernels/{self.ids['buried']}/fence"
        await self.launcher.call("POST", path, fence="1.20")
        await self.launcher.delete(self.ids["buried"], fence="1.20")
        await self.begin_and_die()

    async def begin_and_die(self) -> None:
        """The launcher is killed while a keeper comes up."""
        env = {"KERNEL_FAKE": "wait", "KERNEL_GATE": str(self.gate)}
        putting = asyncio.create_task(self.launcher.put(self.ids["coming_up"], env=env))
        launched = self.launcher.directory(self.ids["coming_up"]) / "launch.json"

        async def begun() -> bool:
            return launched.exists()

        await until(begun, what="the keeper begins")
        self.launcher.process.kill()
        await asyncio.gather(putting, return_exceptions=True)

    @property
    def gate(self) -> Any:
        return self.launcher.base / "gate"

    def tamper(self) -> None:
        for kind in ("reused", "orphan"):
            keeper = process_of(self.handles[kind])
            keeper.send(signal.SIGKILL)
            wait_until(lambda keeper=keeper: not keeper.running, seconds=10, what="its end")
        pid = self.bystander.pid
        self.change("reused", "launch.json", pid=pid)
        kernel = {"pid": pid, "pgid": pid, "start_time": 1}
        self.change("reused", "keeper.json", pid=pid, kernel=kernel)
        self.change("other_boot", "launch.json", machine_boot_id="another")
        for kind in ("stopped", "waking"):
            process_of(self.handles[kind]).send(signal.SIGSTOP)
        other = self.handles["living"]
        where = {"endpoint": other["endpoint"], "credential": other["credential"]}
        self.change("strange", "keeper.json", **where)

    def change(self, kind: str, name: str, **changes: Any) -> None:
        path = self.launcher.directory(self.ids[kind]) / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    async def get(self, kind: str) -> dict[str, Any]:
        return (await self.launcher.get(self.ids[kind])).body


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    launcher = LauncherProcess(tmp_path_factory.mktemp("restarted"))
    bystander = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
    made = Restarted(launcher, bystander)
    try:
        launcher.start()
        asyncio.run(made.prepare())
        made.tamper()
        launcher.start()
        yield made
    finally:
        bystander.kill()
        bystander.wait()
        for kind in ("other_boot", "stopped", "waking"):
            if kind in made.handles:
                process_of(made.handles[kind]).send(signal.SIGKILL)
        asyncio.run(launcher.end())


async def test_a_living_keeper_is_known_from_the_first_answer_on(restarted: Restarted) -> None:
    assert await restarted.get("living") == restarted.handles["living"]
    assert restarted.kernels["living"].running


async def test_a_living_keeper_is_adopted(restarted: Restarted) -> None:
    await restarted.launcher.wait_log("keeper adopted", about=restarted.ids["living"])
    again = await restarted.launcher.put(restarted.ids["living"])
    assert again.body == restarted.handles["living"]


async def test_a_reused_pid_is_nobody(restarted: Restarted) -> None:
    """A living process with the keeper's pid and another start time is left alone."""
    body = await restarted.get("reused")
    assert (body["alive"], body["credential"]) == (False, None)
    gone = await restarted.launcher.delete(restarted.ids["reused"])
    assert gone.body == {"gone": True}
    assert restarted.bystander.poll() is None


async def test_another_boot_of_the_machine_is_evidence(restarted: Restarted) -> None:
    assert (await restarted.get("other_boot"))["reason"] == "the machine was restarted"


async def test_a_stopped_keeper_is_alive_and_adopted_when_it_wakes(restarted: Restarted) -> None:
    launcher, kernel_id = restarted.launcher, restarted.ids["waking"]
    await launcher.wait_log("keeper does not answer yet", about=kernel_id)
    assert (await restarted.get("waking"))["alive"] is True
    assert not launcher.logged("keeper adopted", about=kernel_id)
    process_of(restarted.handles["waking"]).send(signal.SIGCONT)
    await launcher.wait_log("keeper adopted", about=kernel_id)
    assert await restarted.get("waking") == restarted.handles["waking"]


async def test_a_stopped_keeper_can_be_deleted(restarted: Restarted) -> None:
    gone = await restarted.launcher.delete(restarted.ids["stopped"])
    assert gone.body == {"gone": True}
    assert not process_of(restarted.handles["stopped"]).running


async def test_who_answers_with_another_nonce_is_not_adopted(restarted: Restarted) -> None:
    launcher, kernel_id = restarted.launcher, restarted.ids["strange"]
    await launcher.wait_log("keeper disputed", about=kernel_id)
    # Its process lives, so it is not dead; but its credential is not for who answers there.
    for reply in (await launcher.get(kernel_id), await launcher.put(kernel_id)):
        assert (reply.status, reply.body["reason"]) == (503, "not_ready")
    assert (await launcher.delete(kernel_id)).body == {"gone": True}
    assert not process_of(restarted.handles["strange"]).running
    assert process_of(restarted.handles["living"]).running


async def test_a_kernel_whose_keeper_died_meanwhile_is_ended_and_told(
    restarted: Restarted,
) -> None:
    body = await restarted.get("orphan")
    reason = "the keeper ended while its launcher was away"
    assert (body["alive"], body["reason"]) == (False, reason)
    await _until_gone(restarted.kernels["orphan"])
    again = await restarted.launcher.put(restarted.ids["orphan"])
    assert again.body["alive"] is False, "that start is history"
    fresh = await restarted.launcher.put(restarted.ids["orphan"], nonce="n2")
    assert fresh.body["alive"] is True


async def test_the_reason_of_a_death_outlives_the_launcher(restarted: Restarted) -> None:
    reason = (await restarted.get("failed"))["reason"]
    assert reason == "the keeper was killed by signal 9 (SIGKILL)"


async def test_a_keeper_that_was_coming_up_when_the_launcher_died(restarted: Restarted) -> None:
    """Nobody reads its ready pipe any more; the next launcher waits for its keeper.json."""
    early = await restarted.launcher.get(restarted.ids["coming_up"])
    assert (early.status, early.body["reason"]) == (503, "not_ready")
    launched = restarted.launcher.directory(restarted.ids["coming_up"]) / "launch.json"
    retry = asyncio.create_task(restarted.launcher.put(restarted.ids["coming_up"]))
    restarted.gate.touch()
    reply = await retry
    assert reply.status == 200
    assert reply.body["engine_handle"]["pid"] == json.loads(launched.read_text())["pid"]
    assert reply.body["endpoint"] is not None


async def test_the_token_outlives_launcher_and_kernel(restarted: Restarted) -> None:
    kernel_id = restarted.ids["buried"]
    assert (await restarted.get("buried"))["reason"] == "it was deleted"
    assert (await restarted.launcher.put(kernel_id, nonce="late", fence="1.19")).status == 412
    assert (await restarted.launcher.put(kernel_id, nonce="late", fence="1.20")).status == 200


async def test_sigterm_leaves_keepers_and_kernels(own_launcher: LauncherProcess) -> None:
    own_launcher.start()
    kernel_id = new_id()
    before = (await own_launcher.put(kernel_id)).body
    kernel = ProcessId.of((await keeper_call(before, "POST", "/v1/start")).body["pid"])
    assert kernel is not None
    zygote = _zygote(own_launcher, before)
    own_launcher.process.signal(signal.SIGTERM)
    assert own_launcher.process.wait(10) == 0
    await _until_gone(zygote)
    own_launcher.start()
    assert (await own_launcher.get(kernel_id)).body == before
    assert kernel.running
    # Not our child any more, and its death is seen all the same.
    process_of(before).send(signal.SIGKILL)
    gone = await own_launcher.wait_dead(kernel_id)
    assert "not known" in gone["reason"]
    await _until_gone(kernel)


async def test_two_launchers_never_share_a_state_directory(launcher: LauncherProcess) -> None:
    second = _run("--config", str(launcher.config))
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
    done = _run("end-kernels", "--config", str(own_launcher.config))
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(process_of(handle).running for handle in handles)
    assert [marked(MARK, mark) for mark in marks] == [[], []]
    assert os.listdir(own_launcher.state / "kernels") == []


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "holdfast_launcher", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _zygote(launcher: LauncherProcess, handle: dict[str, Any]) -> ProcessId:
    children = proc(launcher.pid, f"task/{launcher.pid}/children").split()
    pids = {int(child) for child in children} - {handle["engine_handle"]["pid"]}
    found = ProcessId.of(pids.pop())
    assert found is not None
    return found


async def _until_gone(process: ProcessId) -> None:
    async def gone() -> bool:
        return not process.running

    await until(gone, what=f"{process} ends")
