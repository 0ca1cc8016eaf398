"""A kernel that is not ipykernel: no welcome, its own high-water mark, other habits."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from importlib.metadata import EntryPoint
from typing import ClassVar

import psutil
import pytest
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from holdfast_launcher.keeper.ports import KernelStartFailed


@pytest.fixture
def fake(bench, running_host):
    async def start(mark: int = 1000, *, spec: dict | None = None, **changes):
        bench.fake_spec(mark=mark, **(spec or {}))
        return await running_host(bench, spec="fake", **changes)

    return start


async def test_ready_by_nudges_which_nobody_sees(fake, cell):
    running = await fake()
    request = cell("say hello")
    await running.run(request)
    assert running.recorder.text(request) == "hello"
    assert not running.host._current.highwater_raised
    for said in running.recorder.said:
        if said[0] in ("published", "answered"):
            assert not said[-1].parent_dict.get("session", "").startswith("holdfast")
    running.recorder.check_wire_forms()


async def test_a_reply_is_published_before_the_next_request_of_a_hung_kernel(
    fake, cell, request_of
):
    """Shell is not read; control passes; interrupt goes by message and unhangs it."""
    running = await fake(spec={"interrupt_mode": "message"})
    host, recorder = running.host, running.recorder
    await running.run(cell("hang"))
    waiting = cell("say after")
    host.send("one", waiting)
    await running.run(request_of("kernel_info_request", {}, channel="control"))
    assert recorder.reply(waiting) is None
    pid = host.info().pid
    await host.interrupt()
    await recorder.done(waiting)
    assert recorder.text(waiting) == "after"
    assert host.info().pid == pid


async def test_skipped_numbers_are_reported_as_lost(fake, cell):
    running = await fake()
    for _ in range(5):
        await running.run(cell("say something"))
    await running.run(cell("skip 214"))
    await running.run(cell("say more"))
    await running.recorder.until(lambda: running.recorder.kinds()[1:])
    (lost,) = running.recorder.kinds()[1:]
    assert lost[:2] == ("lost", 214)
    assert "dropped" in lost[2]


async def test_a_small_mark_loses_nothing_while_the_loop_is_blocked(fake, cell):
    """The thread reads on while the loop stands still; what is dropped would be reported."""
    running = await fake(mark=1000)
    request = cell("publish 8000 100")
    running.host.send("one", request)
    recorder = running.recorder
    await recorder.until(lambda: len(recorder.outputs(request, "stream")) >= 10)
    time.sleep(1.0)  # noqa: ASYNC251 - to block the loop is the test
    await recorder.done(request)
    arrived = len(recorder.outputs(request, "stream"))
    lost = 0
    if arrived < 8000:  # a loaded machine: then every one of them is accounted for
        await recorder.until(lambda: sum(s[1] for s in recorder.kinds()[1:]) == 8000 - arrived)
        lost = sum(said[1] for said in recorder.kinds()[1:])
    assert arrived + lost == 8000


async def test_a_closed_session_takes_its_answer_along_without_a_false_loss(fake, cell):
    running = await fake()
    host, recorder = running.host, running.recorder
    for _ in range(5):
        await running.run(cell("say something"))
    host.open_session("leaving")
    await running.run(cell("hang"))
    host.send("leaving", cell("say unheard"))
    host.close_session("leaving")
    await running.host._current._wire.ask("control", "interrupt_request", {})
    for _ in range(10):
        await running.run(cell("say something"))
    counters = host._current._counters
    assert sum(counters.tick() for _ in range(4)) == 0
    assert [s for s in recorder.kinds() if s[0] == "lost"] == []


async def test_what_the_kernel_did_not_sign_is_refused(fake, cell):
    running = await fake()
    request = cell("forge")
    await running.run(request)
    assert running.recorder.text(request) == ""
    assert running.host._current._wire.refused == 1


@pytest.mark.parametrize("by_spec", [False, True])
async def test_tcp_on_loopback(fake, cell, by_spec):
    if by_spec:
        running = await fake(spec={"metadata": {"holdfast": {"transport": "tcp"}}})
    else:
        running = await fake(transport="tcp")
    connection = running.host._current.launched.connection
    assert connection.url("shell").startswith("tcp://127.0.0.1:")
    request = cell("say hello")
    await running.run(request)
    await running.host.restart()
    again = cell("say again")
    await running.run(again)
    assert running.recorder.text(again) == "again"


async def test_ipykernel_on_tcp_is_encrypted(bench, running_host, cell):
    running = await running_host(bench, transport="tcp")
    launched = running.host._current.launched
    assert launched.connection.curve_public is not None
    request = cell("print('hello')")
    await running.run(request)
    assert running.recorder.text(request) == "hello\n"
    assert running.host._current.highwater_raised


async def test_a_long_state_directory_gets_short_private_sockets(fake, cell, bench):
    deep = bench.directory / ("d" * 100)
    running = await fake(state_dir=str(deep))
    place = running.host._current.launched.socket_dir
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    request = cell("say hello")
    await running.run(request)
    assert running.recorder.text(request) == "hello"
    await running.host.shutdown(now=True)
    assert place.name not in os.listdir(place.parent)


async def test_a_kernel_that_ignores_the_request_is_ended_all_the_same(fake, cell):
    running = await fake()
    pid = running.host.info().pid
    psutil.Process(pid).suspend()
    await running.host.shutdown(now=False)
    assert not psutil.pid_exists(pid)


class TracingProvisioner(LocalProvisioner):
    """As a plug-in would be: it changes the environment and tells what it was asked."""

    asked: ClassVar[list[str]] = []

    async def pre_launch(self, **kwargs):
        self.asked.append("pre_launch")
        kwargs["env"] = kwargs["env"] | {"BY_PLUGIN": self.kernel_id}
        return await super().pre_launch(**kwargs)

    async def shutdown_requested(self, restart=False):
        self.asked.append(f"shutdown_requested {restart}")

    async def cleanup(self, restart=False):
        self.asked.append(f"cleanup {restart}")
        await super().cleanup(restart=restart)


class RemoteProvisioner(LocalProvisioner):
    """Pretends that its kernel listens on another host, in the clear."""

    async def launch_kernel(self, cmd, **kwargs):
        info = await super().launch_kernel(cmd, **kwargs)
        return info | {"transport": "tcp", "ip": "192.0.2.7"}


@pytest.fixture
def plug_in(monkeypatch):
    def register(kind):
        entry = EntryPoint("plug-in", f"{__name__}:{kind.__name__}", "x")
        monkeypatch.setattr(EntryPoint, "load", lambda self: kind)
        monkeypatch.setitem(KernelProvisionerFactory.provisioners, "plug-in", entry)
        return {"metadata": {"kernel_provisioner": {"provisioner_name": "plug-in"}}}

    return register


async def test_a_provisioner_plug_in_starts_the_kernel(fake, plug_in, monkeypatch):
    monkeypatch.setattr(TracingProvisioner, "asked", [])
    running = await fake(spec=plug_in(TracingProvisioner))
    environment = psutil.Process(running.host.info().pid).environ()
    assert environment["BY_PLUGIN"] == running.host._config.kernel_id
    assert "JPY_PARENT_PID" not in environment
    await running.host.restart()
    await running.host.shutdown(now=False)
    assert TracingProvisioner.asked == [
        "pre_launch",
        "shutdown_requested True",
        "cleanup True",
        "pre_launch",
        "shutdown_requested False",
        "cleanup False",
    ]


class BrokenProvisioner(LocalProvisioner):
    """A plug-in that fails whenever a kernel ends."""

    async def shutdown_requested(self, restart=False):
        raise RuntimeError("the scheduler is away")

    async def cleanup(self, restart=False):
        raise RuntimeError("the scheduler is away")


async def test_a_plug_in_that_raises_does_not_keep_a_kernel_from_ending(fake, plug_in):
    running = await fake(spec=plug_in(BrokenProvisioner))
    pid = running.host.info().pid
    await running.host.restart()
    assert not psutil.pid_exists(pid)
    assert running.host.info().execution_state == "idle"
    await running.host.shutdown(now=False)
    kinds = [said[0] for said in running.recorder.kinds()]
    assert kinds == ["ready", "ended", "ready", "ended"]


class HangingProvisioner(LocalProvisioner):
    """A plug-in whose start never comes back, though there is a process already."""

    made: ClassVar[list[int]] = []
    entered: ClassVar[asyncio.Event]
    stubborn: ClassVar[bool] = False

    async def launch_kernel(self, cmd, **kwargs):
        await super().launch_kernel(cmd, **kwargs)
        self.made.append(self.pid)
        self.entered.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise
                await asyncio.sleep(5)
                raise


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_start_that_hangs_does_not_hold_a_shutdown(
    bench, recorder, plug_in, monkeypatch, stubborn
):
    monkeypatch.setattr(HangingProvisioner, "entered", asyncio.Event(), raising=False)
    monkeypatch.setattr(HangingProvisioner, "stubborn", stubborn)
    monkeypatch.setattr("holdfast_launcher.keeper.kernel.host._ABANDON_WAIT", 0.5)
    bench.fake_spec(**plug_in(HangingProvisioner))
    host = bench.host(recorder, spec="fake")
    starting = asyncio.create_task(host.start())
    await HangingProvisioner.entered.wait()
    pid = HangingProvisioner.made[-1]
    bench.watch(pid)
    async with asyncio.timeout(4):
        await host.shutdown(now=True)
    with pytest.raises(KernelStartFailed, match="shut down while it started"):
        await starting
    assert host.info().execution_state == "dead"
    if not stubborn:  # the launcher ends what such a plug-in keeps
        assert not psutil.pid_exists(pid)
        assert os.listdir(f"{host._config.state_dir}/kernel") == ["output.log"]


async def test_a_kernel_elsewhere_in_the_clear_is_refused(bench, recorder, plug_in):
    bench.fake_spec(**plug_in(RemoteProvisioner))
    host = bench.host(recorder, spec="fake", transport="tcp")
    with pytest.raises(KernelStartFailed, match="allow_plaintext"):
        await host.start()
    assert os.listdir(f"{host._config.state_dir}/kernel") == ["output.log"]


async def test_the_kernel_gets_its_environment_and_no_other(fake, monkeypatch):
    monkeypatch.setenv("GATEWAY_SECRET", "not for kernels")
    running = await fake(env={"KERNEL_USERNAME": "ada", "JPY_PARENT_PID": "1"})
    environment = psutil.Process(running.host.info().pid).environ()
    assert environment["KERNEL_USERNAME"] == "ada"
    assert not {"GATEWAY_SECRET", "JPY_PARENT_PID"} & set(environment)
