"""The agent over an engine in memory: every step of a start and of an end interrupted.

No process is started: keepers are objects, launches wait at a gate that the test opens.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from launcher_process import until

from holdfast_launcher.agent.agent import Agent
from holdfast_launcher.agent.incarnation import Incarnation
from holdfast_launcher.agent.launching import StartOrder
from holdfast_launcher.config import LauncherConfig, parse_config
from holdfast_launcher.engines.contract import Engine, Keeper, LaunchFailed
from holdfast_launcher.errors import (
    NonceMismatch,
    NoSuchKernel,
    NotReady,
    Refused,
    StaleToken,
    StartFailed,
)
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.kernelspecs import KernelspecCatalog
from holdfast_protocol.fencing import Token

K = "00000000-0000-4000-8000-000000000001"


class MemoryKeeper(Keeper):
    def __init__(self, number: int) -> None:
        self.number = number
        self.gone = asyncio.Event()
        self.killable = True
        self.callbacks: list[Callable[[], None]] = []

    @property
    def alive(self) -> bool:
        return not self.gone.is_set()

    @property
    def reason(self) -> str | None:
        return "the keeper fell" if self.gone.is_set() else None

    @property
    def handle(self) -> Mapping[str, Any]:
        return {"engine": "memory", "pid": self.number, "start_time": 0}

    def on_gone(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    async def wait_gone(self, *, timeout: float) -> bool:
        # The wait that the launcher bounds is not waited out here.
        await asyncio.sleep(0)
        return self.gone.is_set()

    def kill(self) -> None:
        if self.killable:
            self.fall()

    def fall(self) -> None:
        if not self.gone.is_set():
            self.gone.set()
            for callback in self.callbacks:
                callback()

    def release(self) -> None:
        self.callbacks.clear()


class MemoryEngine(Engine):
    name = "memory"

    def __init__(self) -> None:
        self.keepers: list[MemoryKeeper] = []
        self.configs: list[KeeperConfig] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.failure: str | None = None
        #: Nothing to start a keeper with; ``stray``: one came of it all the same.
        self.lacking: Exception | None = None
        self.refusals = 0
        self.stray: MemoryKeeper | None = None
        self.kernel_ends = True
        self.ended: list[str] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def launch(self, config: KeeperConfig) -> Keeper:
        self.entered.set()
        await self.gate.wait()
        if self.failure is not None:
            raise LaunchFailed(self.failure)
        if self.lacking is not None:
            self.refusals += 1
            raise self.lacking
        keeper = MemoryKeeper(len(self.keepers) + 1)
        self.keepers.append(keeper)
        self.configs.append(config)
        document = {
            "kernel_id": config.kernel_id,
            "nonce": config.nonce,
            "pid": keeper.number,
            "start_time": 0,
            # Port 1 refuses: a keeper that is asked to end does not answer and is killed.
            "endpoint": {"host": "127.0.0.1", "port": 1},
            "credential": config.credential,
            "epoch": "e",
            "spec": config.spec,
            "user": config.user,
        }
        (config.directory / "keeper.json").write_text(json.dumps(document))
        return keeper

    async def find(self, directory: Path) -> Keeper | None:
        if self.lacking is not None:
            self.refusals += 1
            raise self.lacking
        return self.stray if self.stray is not None and self.stray.alive else None

    async def end_kernel(self, directory: Path, *, mark: str, timeout: float) -> bool:
        self.ended.append(directory.name)
        return self.kernel_ends


class Bench:
    def __init__(self, base: Path, **settings: Any) -> None:
        document = {"launcher_id": "t", "state_dir": "state", "single_user": True, **settings}
        self.config: LauncherConfig = parse_config(document, base=base)
        self.config.state.mkdir(mode=0o700)
        self.engine = MemoryEngine()
        self.news = 0
        self.agent = Agent(
            config=self.config,
            engine=self.engine,
            catalog=KernelspecCatalog(()),
            base_environment={"PATH": "/bin"},
            advertise_host="127.0.0.1",
            on_change=self.changed,
        )

    def changed(self) -> None:
        self.news += 1

    async def put(self, nonce: str = "one", revision: int = 10, **more: Any) -> dict[str, Any]:
        order = StartOrder(nonce=nonce, user="ada", spec="python3", **more)
        return await self.agent.put(K, Token(1, revision), order)

    async def delete(self, revision: int = 10) -> dict[str, Any]:
        return await self.agent.delete(K, Token(1, revision))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.agent.start()
    yield made
    await made.agent.close()


async def test_the_launch_carries_what_the_keeper_needs(bench: Bench, tmp_path: Path) -> None:
    handle = await bench.put(env={"KERNEL_X": "1"}, path="a/b.ipynb", limits={"log_disk_bytes": 7})
    (config,) = bench.engine.configs
    assert config.credential == handle["credential"]
    assert len(config.credential) >= 40
    assert config.env["KERNEL_X"] == "1"
    assert config.env["PATH"] == "/bin"
    assert (config.log_disk_bytes, config.log_memory_bytes) == (7, 8 * 1024**2)
    assert config.kernelspec_dirs
    quota = Path(config.log_quota_dir or "") / "quota"
    assert int(quota.read_text()) == bench.config.log_node_bytes == 16 * 1024**3
    assert quota.stat().st_mode & 0o777 == 0o600
    assert Path(config.path or "").is_absolute()
    assert config.directory == tmp_path / "state" / "kernels" / K


async def test_a_new_owner_is_not_made_to_wait_and_the_old_one_hears(bench: Bench) -> None:
    """The token rises while the old owner's keeper comes up: its PUT is answered with that."""
    bench.engine.gate.clear()
    old = asyncio.create_task(bench.put(revision=10))
    await bench.engine.entered.wait()
    assert await bench.agent.acknowledge(K, Token(1, 11)) == Token(1, 11)
    bench.engine.gate.set()
    with pytest.raises(StaleToken):
        await old
    found = await bench.put(revision=11)
    assert (found["alive"], len(bench.engine.keepers)) == (True, 1)


async def test_a_delete_waits_for_the_start_before_it_and_ends_it(bench: Bench) -> None:
    bench.engine.gate.clear()
    starting = asyncio.create_task(bench.put(revision=10))
    await bench.engine.entered.wait()
    await bench.agent.acknowledge(K, Token(1, 11))
    deleting = asyncio.create_task(bench.delete(revision=11))
    # A start that was queued behind the delete must not come after it.
    late = asyncio.create_task(bench.put(revision=10))
    await asyncio.sleep(0)
    bench.engine.gate.set()
    assert await deleting == {"gone": True}
    for task in (starting, late):
        with pytest.raises(StaleToken):
            await task
    assert [keeper.alive for keeper in bench.engine.keepers] == [False]
    assert bench.agent.get(K)["reason"] == "it was deleted"


async def test_a_failed_start_may_be_tried_again(bench: Bench) -> None:
    bench.engine.failure = "no disk"
    with pytest.raises(StartFailed, match="no disk"):
        await bench.put()
    assert bench.agent.get(K)["reason"] == "no disk"
    assert bench.agent.beat()[K]["alive"] is False
    bench.engine.failure = None
    assert (await bench.put())["alive"] is True


@pytest.mark.parametrize("stray", [False, True])
async def test_a_start_without_descriptors_leaves_nothing_and_may_be_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stray: bool
) -> None:
    monkeypatch.setattr("holdfast_launcher.agent.agent.TRY_AGAIN", 0.0)
    bench.engine.lacking = OSError(24, "Too many open files")
    with pytest.raises(NotReady, match="Too many open files"):
        await bench.put()
    with pytest.raises(NotReady, match="being undone"):
        await bench.put()
    await until(lambda: _true(bench.engine.refusals >= 4), what="it is looked at again")
    keeper = bench.engine.stray = MemoryKeeper(7) if stray else None
    bench.engine.lacking = None
    await until(lambda: _true(K not in bench.agent.beat()), what="it is undone")
    assert keeper is None or not keeper.alive
    with pytest.raises(NoSuchKernel):
        bench.agent.get(K)
    assert (await bench.put())["alive"] is True
    assert bench.news == 0, "nobody was told of a death"


async def test_a_delete_ends_what_came_of_a_start_that_broke_off(bench: Bench) -> None:
    bench.engine.lacking = RuntimeError("can't start new thread")
    with pytest.raises(NotReady):
        await bench.put()
    bench.engine.lacking = None
    keeper = bench.engine.stray = MemoryKeeper(7)
    assert await bench.delete() == {"gone": True}
    assert not keeper.alive
    assert bench.agent.get(K)["reason"] == "it was deleted"


async def test_a_death_is_news_once_and_ends_the_kernel(bench: Bench) -> None:
    await bench.put()
    bench.engine.keepers[0].fall()
    assert bench.news == 1
    assert bench.agent.get(K)["reason"] == "the keeper fell"
    await asyncio.sleep(0)
    assert bench.engine.ended == [K]


async def test_a_death_that_was_asked_for_is_no_news(bench: Bench) -> None:
    await bench.put()
    await bench.delete()
    assert bench.news == 0


async def test_what_does_not_end_is_not_said_to_be_gone(bench: Bench) -> None:
    await bench.put()
    bench.engine.keepers[0].killable = False
    with pytest.raises(NotReady) as caught:
        await bench.delete()
    assert caught.value.reason == "not_gone"
    assert bench.agent.get(K)["alive"] is True
    bench.engine.keepers[0].killable = True
    bench.engine.kernel_ends = False
    with pytest.raises(NotReady):
        await bench.delete()
    assert bench.agent.get(K)["alive"] is False
    with pytest.raises(NotReady):
        await bench.put("two")
    assert len(bench.engine.keepers) == 1, "nothing new beside what is left of the old"
    bench.engine.kernel_ends = True
    assert await bench.delete() == {"gone": True}


async def test_never_two_at_once(bench: Bench) -> None:
    """Many owners' calls in any order: at each moment one keeper at most lives."""
    calls = [bench.put(nonce, revision) for revision in (10, 11, 12) for nonce in ("one", "two")]
    calls += [bench.delete(revision) for revision in (10, 11)]
    await asyncio.gather(*calls, return_exceptions=True)
    assert sum(keeper.alive for keeper in bench.engine.keepers) <= 1
    with pytest.raises(StaleToken):
        await bench.put("three", 11)


async def test_capacity_is_a_limit_and_the_dead_take_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path, capacity={"kernels": 1})
    await bench.agent.start()
    await bench.put()
    other = StartOrder(nonce="n", user="ada")
    with pytest.raises(NotReady) as caught:
        await bench.agent.put("other", Token(1, 1), other)
    assert caught.value.reason == "no_capacity"
    bench.engine.keepers[0].fall()
    assert (await bench.agent.put("other", Token(1, 1), other))["spec"] == "python3"
    await bench.agent.close()


async def test_without_single_user_nothing_starts(tmp_path: Path) -> None:
    bench = Bench(tmp_path, single_user=False)
    await bench.agent.start()
    with pytest.raises(Refused) as caught:
        await bench.put()
    assert caught.value.reason == "single_user_required"
    with pytest.raises(NoSuchKernel):
        bench.agent.get(K)
    await bench.agent.close()


async def test_another_nonce_only_after_the_end(bench: Bench) -> None:
    await bench.put("one")
    with pytest.raises(NonceMismatch):
        await bench.put("two")
    await bench.delete()
    with pytest.raises(NonceMismatch) as caught:
        await bench.put("one")
    assert caught.value.reason == "deleted"
    assert (await bench.put("two"))["alive"] is True


async def test_a_start_that_comes_while_the_disk_is_read_is_not_found_twice(bench: Bench) -> None:
    """A look at the disk sees the new keeper's directory; the start's own word counts."""
    found, go = MemoryKeeper(99), asyncio.Event()
    looked = asyncio.Event()

    async def find(directory: Path) -> Keeper | None:
        looked.set()
        await go.wait()
        return found

    bench.engine.find = find  # type: ignore[method-assign]
    released: list[int] = []
    found.release = lambda: released.append(found.number)  # type: ignore[method-assign]
    directory = bench.config.kernels / K
    directory.mkdir(mode=0o700)
    launch = {"kernel_id": K, "nonce": "one", "pid": 1, "start_time": 0, "machine_boot_id": "b"}
    (directory / "launch.json").write_text(json.dumps(launch))
    looking = asyncio.create_task(bench.agent._take_in())
    await asyncio.wait_for(looked.wait(), 5)
    kernel = Incarnation(kernel_id=K, nonce="one", directory=directory)
    bench.agent._kernels[K] = kernel  # what a start does before it launches
    go.set()
    await looking
    assert bench.agent._kernels[K] is kernel
    assert released == [99]


async def test_a_directory_that_nobody_answers_for_is_removed_by_a_start(bench: Bench) -> None:
    directory = bench.config.kernels / K
    directory.mkdir(mode=0o700)
    (directory / "segment.0").touch()
    await bench.put()
    assert not (directory / "segment.0").exists()


async def _true(value: bool) -> bool:
    return value
