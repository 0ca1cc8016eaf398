"""The supervisor with quick fake programs: restarts, `cluster.json`, the stop, what is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from holdfast_proxy.cli.up import leftovers
from holdfast_proxy.cli.up.child import Child, ChildEvent, ChildSpec, Phase, StartFailed
from holdfast_proxy.cli.up.identity import ProcessIdentity
from holdfast_proxy.cli.up.plan import Plan, UpOptions
from holdfast_proxy.cli.up.ports import choose
from holdfast_proxy.cli.up.probe import HttpAnswer, ReadyFile
from holdfast_proxy.cli.up.specs import Specs
from holdfast_proxy.cli.up.state_dir import StateDir
from holdfast_proxy.cli.up.tree import Tree
from support.processes import free_port

FAKE = Path(__file__).with_name("fake_child.py")
DEADLINE = 20.0


async def until(condition: Callable[[], Any], what: str) -> Any:
    """The first true answer of ``condition``; fails the test after DEADLINE."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if answer := condition():
            return answer
        await asyncio.sleep(0.02)
    pytest.fail(f"never happened: {what}")


def gone(pid: int) -> bool:
    return ProcessIdentity.of(pid) is None


class Bench:
    """Makes specs of fake programs in one temporary directory, and remembers events and pids."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.journal = base / "journal"
        self.events: list[ChildEvent] = []
        self.children: list[Child] = []

    def argv(self, name: str, port: int, *more: str) -> tuple[str, ...]:
        return (
            sys.executable, "-I", "-S", str(FAKE), "--name", name, "--port", str(port),
            "--journal", str(self.journal), *more,
        )  # fmt: skip

    def spec(self, name: str, *more: str, **options: Any) -> ChildSpec:
        ready = self.base / f"{name}.ready"
        argv = self.argv(name, free_port(), "--ready", str(ready), *more)
        return ChildSpec(
            name=name, kind="fake", argv=argv, env=dict(os.environ),
            log=self.base / f"{name}.log", probe=ReadyFile(ready), **options,
        )  # fmt: skip

    def start(self, spec: ChildSpec) -> Child:
        child = Child(spec, self.events.append)
        self.children.append(child)
        child.start()
        return child

    def said(self, what: str) -> list[str]:
        if not self.journal.exists():
            return []
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [name for name, event, _ in lines if event == what]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for child in bench.children:
        await child.stop(grace=0.0)


async def test_a_killed_child_is_back_within_two_seconds(bench: Bench) -> None:
    child = bench.start(bench.spec("a"))
    await child.wait_ready()
    first, url = child.pid, child.url
    assert first is not None
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    await until(lambda: child.pid not in {first, None}, "a new process")
    assert time.monotonic() - killed < 2.0
    await until(lambda: child.phase is Phase.READY, "ready again")
    assert child.url == url
    assert any("SIGKILL" in event.detail for event in bench.events)


async def test_a_stopped_process_is_not_dead(bench: Bench) -> None:
    child = bench.start(bench.spec("a"))
    await child.wait_ready()
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    other = bench.start(bench.spec("b"))  # as long as another one takes to start
    await other.wait_ready()
    assert (child.pid, child.phase) == (pid, Phase.READY)
    # and a stop ends it all the same
    await child.stop(grace=DEADLINE)
    assert gone(pid)
    assert bench.said("asked") == ["a"]


async def test_a_child_that_cannot_run_waits_longer_each_time(bench: Bench) -> None:
    broken = bench.base / "broken"
    broken.touch()
    child = bench.start(bench.spec("a", "--fail-while", str(broken)))
    with pytest.raises(StartFailed, match="a does not start") as failure:
        await child.wait_ready(attempts=3)
    assert failure.value.name == "a"
    details = [event.detail for event in bench.events if event.phase is Phase.WAITING]
    assert details[0] == "ended with exit code 3, starting again"
    assert details[1] == "ended with exit code 3, again in 0.5 s"
    assert "told to fail" in (bench.base / "a.log").read_text()
    broken.unlink()
    await child.wait_ready(attempts=9)  # it is still tried


async def test_a_program_that_does_not_exist_is_said(bench: Bench) -> None:
    spec = ChildSpec(
        name="a", kind="fake", argv=(str(bench.base / "nothing"),), env={},
        log=bench.base / "a.log", probe=ReadyFile(bench.base / "a.ready"),
    )  # fmt: skip
    child = bench.start(spec)
    with pytest.raises(StartFailed):
        await child.wait_ready(attempts=1)
    assert "cannot be started" in bench.events[0].detail


async def test_a_child_that_never_gets_ready_is_started_anew(bench: Bench) -> None:
    good = bench.spec("a")
    spec = ChildSpec(
        name="a", kind="fake", argv=good.argv, env=good.env, log=good.log,
        probe=ReadyFile(bench.base / "another-file"), start_timeout=0.3,
    )  # fmt: skip
    child = bench.start(spec)
    with pytest.raises(StartFailed):
        await child.wait_ready(attempts=2)
    assert len(bench.said("started")) <= 3


async def test_what_ignores_sigterm_is_killed_after_its_grace(bench: Bench) -> None:
    child = bench.start(bench.spec("a", "--ignore-term"))
    await child.wait_ready()
    pid = child.pid
    assert pid is not None
    await child.stop(grace=0.3)
    assert gone(pid)
    assert child.phase is Phase.STOPPED


async def test_a_stop_between_two_runs_starts_nothing_again(bench: Bench) -> None:
    broken = bench.base / "broken"
    broken.touch()
    child = bench.start(bench.spec("a", "--fail-while", str(broken)))
    with pytest.raises(StartFailed):
        await child.wait_ready(attempts=4)
    await child.stop(grace=1.0)
    assert (child.phase, child.pid) == (Phase.STOPPED, None)


async def test_a_child_gets_sigterm_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    """`kill -9` of `holdfast up` leaves no etcd, proxy or lab behind."""
    journal, log = tmp_path / "journal", tmp_path / "log"
    code = (
        "import asyncio,sys; from pathlib import Path\n"
        "from holdfast_proxy.cli.up.spawning import spawn\n"
        "async def main():\n"
        "    await spawn(sys.argv[2:], {}, Path(sys.argv[1]))\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    child = [sys.executable, "-I", "-S", str(FAKE), "--name=x", "--port=0", f"--journal={journal}"]
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(log), *child)
    line = await until(lambda: journal.exists() and journal.read_text().split(), "the child")
    ready = tmp_path / "never"
    pid = int(line[2])
    assert not ready.exists()
    await until(lambda: psutil.Process(pid).net_connections(), "its signal handler is set")
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: gone(pid), "the child's end")
    assert "asked" in journal.read_text()


async def test_leftovers_are_known_by_pid_and_start_time(bench: Bench) -> None:
    child = bench.start(bench.spec("a"))
    await child.wait_ready()
    assert child.pid is not None
    said = leftovers.to_json({"a": child.pid})
    assert leftovers.from_json(said)["a"].pid == child.pid
    other = {"a": {**said["a"], "start_ticks": said["a"]["start_ticks"] + 1}}
    assert leftovers.from_json(other) == {}
    assert leftovers.from_json({"a": "nonsense", "b": {}}) == {}
    assert leftovers.from_json(None) == {}


async def test_leftovers_are_ended_even_when_they_ignore_sigterm(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", str(FAKE), "--name=x", "--port=0", "--ignore-term"]
    ready = tmp_path / "ready"
    process = await asyncio.create_subprocess_exec(*argv, f"--ready={ready}")
    try:
        await until(ready.exists, "the leftover")
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        os.kill(process.pid, signal.SIGSTOP)
        ending = asyncio.create_task(leftovers.end([identity], grace=0.3))
        await process.wait()
        await asyncio.wait_for(ending, DEADLINE)
        assert not identity.alive
    finally:
        with suppress(ProcessLookupError):
            process.kill()


class FakeSpecs(Specs):
    """A tree of fake programs on the plan's ports; ``extra`` are more arguments by name."""

    def __init__(self, bench: Bench, plan: Plan, http: aiohttp.ClientSession) -> None:
        self.bench, self.plan, self.http = bench, plan, http
        self.extra: dict[str, tuple[str, ...]] = {}
        self.kernels = bench.base / "kernels"
        self.kernels.mkdir(exist_ok=True)
        self.ended = bench.base / "ended-by-launcher"

    def _spec(self, name: str, kind: str, port: int) -> ChildSpec:
        ready = self.plan.state.ready_file(name)
        argv = self.bench.argv(
            name, port, "--ready", str(ready), "--kernels", str(self.kernels),
            *self.extra.get(name, ()),
        )  # fmt: skip
        probe = ReadyFile(ready)
        if kind in {"etcd", "lab"}:
            return ChildSpec(
                name=name, kind=kind, argv=argv, env=dict(os.environ),
                log=self.plan.state.log_file(name),
                probe=HttpAnswer(f"http://127.0.0.1:{port}", "/health", self.http),
            )  # fmt: skip
        return ChildSpec(
            name=name, kind=kind, argv=argv, env=dict(os.environ),
            log=self.plan.state.log_file(name), probe=probe,
        )  # fmt: skip

    def etcd(self) -> ChildSpec:
        return self._spec("etcd", "etcd", self.plan.ports.etcd_client)

    def proxies(self) -> list[ChildSpec]:
        pairs = zip(self.plan.proxy_names, self.plan.ports.proxies, strict=True)
        return [self._spec(name, "proxy", port) for name, port in pairs]

    def launchers(self) -> list[ChildSpec]:
        pairs = zip(self.plan.launcher_names, self.plan.ports.launchers, strict=True)
        return [self._spec(name, "launcher", port) for name, port in pairs]

    def lab(self) -> ChildSpec:
        return self._spec("lab", "lab", self.plan.ports.lab)

    def end_kernels(self) -> Sequence[Sequence[str]]:
        return [("/bin/sh", "-c", f"touch {self.ended}")]


class Up:
    """One tree of fakes."""

    def __init__(self, bench: Bench, state: StateDir, http: aiohttp.ClientSession, **options: Any):
        chosen = choose(0, proxies=2, launchers=1, earlier=None)
        self.options = UpOptions(state_dir=state.path, root_dir=bench.base, **options)
        self.plan = Plan(self.options, chosen, state)
        self.specs = FakeSpecs(bench, self.plan, http)
        self.tree = Tree(
            self.plan, specs=self.specs, env=os.environ, http=http, listener=bench.events.append
        )

    @property
    def cluster(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.plan.state.cluster_file.read_text())
        return content

    @property
    def pids(self) -> list[int]:
        said = self.cluster
        members = [said["etcd"], *said["proxies"], *said["launchers"], said["lab"]]
        return [member["pid"] for member in members if member]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    with StateDir(tmp_path / "state") as state:
        yield state


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
        yield session


@pytest.fixture
async def up(bench: Bench, state: StateDir, http: aiohttp.ClientSession) -> AsyncIterator[Up]:
    up = Up(bench, state, http)
    yield up
    await up.tree.kill()


async def test_what_was_there_before_the_tree_is_not_ended_with_it(
    bench: Bench, state: StateDir, http: aiohttp.ClientSession
) -> None:
    """The child of whoever runs the tree in its own process: once, another test's launcher."""
    earlier = subprocess.Popen(["/bin/sleep", "600"])  # noqa: ASYNC220 - returns at once
    try:
        up = Up(bench, state, http)
        await up.tree.start()
        pids = up.pids
        await up.tree.stop()
        assert all(gone(pid) for pid in pids)
        assert earlier.poll() is None
    finally:
        earlier.kill()
        earlier.wait()


async def test_cluster_file_is_true_and_written_again_after_a_restart(up: Up) -> None:
    await up.tree.start()
    before = up.cluster
    assert [proxy["id"] for proxy in before["proxies"]] == ["proxy-1", "proxy-2"]
    assert [proxy["url"] for proxy in before["proxies"]] == up.plan.proxy_urls
    assert before["etcd"]["url"] == up.plan.etcd_url
    assert before["token"] == up.plan.state.secret("token")
    assert before["lab"]["token"] == up.plan.state.secret("lab.token")
    assert up.plan.state.cluster_file.stat().st_mode & 0o777 == 0o600
    assert not any(gone(pid) for pid in up.pids)
    victim = before["proxies"][1]
    os.kill(victim["pid"], signal.SIGKILL)
    await until(lambda: up.cluster["proxies"][1]["pid"] != victim["pid"], "a new pid")
    after = up.cluster
    assert after["proxies"][1]["url"] == victim["url"]
    assert after["proxies"][0] == before["proxies"][0]
    assert not any(gone(pid) for pid in up.pids)


async def test_children_start_and_stop_in_their_order_with_the_kernels(
    up: Up, bench: Bench
) -> None:
    await up.tree.start()
    assert bench.said("started")[0] == "etcd"
    assert bench.said("started")[-1] == "lab"
    (up.specs.kernels / "k1").touch()
    (up.specs.kernels / "k2").touch()
    pids = up.pids
    began = time.monotonic()
    await up.tree.stop()
    assert time.monotonic() - began < 10.0
    assert all(gone(pid) for pid in pids)
    asked = bench.said("asked")
    assert (asked[0], asked[1], asked[-1]) == ("lab", "launcher-1", "etcd")
    assert not list(up.specs.kernels.iterdir())
    assert up.specs.ended.exists()
    assert not up.plan.state.cluster_file.exists()
    assert not up.plan.state.children_file.exists()


async def test_kept_kernels_are_neither_deleted_nor_ended(
    bench: Bench, state: StateDir, http: aiohttp.ClientSession
) -> None:
    up = Up(bench, state, http, keep_kernels=True, lab=False)
    await up.tree.start()
    assert up.cluster["lab"] is None
    (up.specs.kernels / "k1").touch()
    await up.tree.stop()
    assert (up.specs.kernels / "k1").exists()
    assert not up.specs.ended.exists()


async def test_a_stop_while_it_starts_leaves_nothing(up: Up, bench: Bench) -> None:
    starting = asyncio.create_task(up.tree.start())
    await until(lambda: "proxy-1" in bench.said("started"), "a proxy is starting")
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await up.tree.stop()
    pids = [int(line.split()[2]) for line in bench.journal.read_text().splitlines()]
    assert all(gone(pid) for pid in pids)


async def test_a_child_that_cannot_start_fails_the_start_by_name(up: Up, bench: Bench) -> None:
    broken = bench.base / "broken"
    broken.touch()
    up.specs.extra["launcher-1"] = ("--fail-while", str(broken))
    with pytest.raises(StartFailed) as failure:
        await up.tree.start()
    assert failure.value.name == "launcher-1"
    assert not up.plan.state.cluster_file.exists()


async def test_the_stop_is_bounded_when_every_child_ignores_it(up: Up) -> None:
    for name in ("etcd", "proxy-1", "proxy-2", "launcher-1", "lab"):
        up.specs.extra[name] = ("--ignore-term",)
    await up.tree.start()
    pids = up.pids
    began = time.monotonic()
    await up.tree.stop()
    assert time.monotonic() - began < 10.0
    assert all(gone(pid) for pid in pids)


async def test_children_file_names_what_runs(up: Up) -> None:
    await up.tree.start()
    named = leftovers.from_json(json.loads(up.plan.state.children_file.read_text()))
    assert sorted(identity.pid for identity in named.values()) == sorted(up.pids)
