"""What holds on every engine, asked of a real launcher over HTTP as a proxy asks it.

Another engine joins by a `Bench` of its own in `BENCHES`; the slow ones carry the mark `long`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "agent"))

from launcher_process import LauncherProcess, keeper_call, new_id

from holdfast_launcher.processes import ProcessId
from support.slurm.gateway import until
from support.slurm.site import SlurmSite

REAL = "holdfast_launcher.keeper.main:run"


class Bench:
    """A launcher with one engine. ``table``: its ``[engines.<name>]``."""

    name = "local"

    def __init__(self, base: Path) -> None:
        self.launcher = LauncherProcess(base, entry=REAL)
        self.launcher.settings["engine"] = self.name
        self.launcher.settings["keeper_start_timeout"] = 60.0

    @contextlib.contextmanager
    def infrastructure(self) -> Iterator[None]:
        """What the engine needs, for as long as the bench is used."""
        yield

    async def started(self, kernel_id: str, nonce: str = "n1") -> dict[str, Any]:
        """PUT until there is a keeper; its handle."""
        put = await self.launcher.put(kernel_id, nonce=nonce, pending=True)
        assert put.status == 200, put
        handle = put.body
        while handle["state"] == "pending":
            assert handle["alive"], handle
            assert handle["reason"], "it says what it waits for"
            got = await self.launcher.call("GET", f"/v1/kernels/{kernel_id}?wait=5")
            handle = got.body
        return dict(handle)


class SlurmBench(Bench):
    name = "slurm"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.site = SlurmSite(base / "slurm")
        table = {"conf": str(self.site.conf), "memory": "700M", "poll_interval": 1.0}
        self.launcher.settings["engines"] = table

    @contextlib.contextmanager
    def infrastructure(self) -> Iterator[None]:
        launcher, table = self.launcher, self.launcher.settings.pop("engines")
        inline = ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        # LauncherProcess writes JSON values, which an inline table is not.
        launcher.engine_table = f"engines.slurm = {{ {inline} }}\n"
        try:
            self.site.start()
            yield
        finally:
            self.site.stop()


BENCHES = [Bench, pytest.param(SlurmBench, marks=[pytest.mark.long, pytest.mark.timeout(600)])]


@pytest.fixture(params=BENCHES, ids=lambda bench: str(bench.name))
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    made: Bench = request.param(tmp_path)
    with made.infrastructure():
        try:
            await asyncio.to_thread(made.launcher.start)
            yield made
        finally:
            if made.launcher.process.alive:
                for handle in (await made.launcher.call("GET", "/v1/kernels")).body["kernels"]:
                    await made.launcher.delete(handle["kernel_id"], fence="1.99")
            await made.launcher.end()


async def test_a_start_its_launchers_death_and_its_end(bench: Bench) -> None:
    kernel_id = new_id()
    handle = await bench.started(kernel_id)
    again = await bench.started(kernel_id)
    assert again == handle, "a start is idempotent by its nonce"
    other = await bench.launcher.put(kernel_id, nonce="n2", pending=True)
    assert (other.status, other.body["reason"]) == (409, "nonce_mismatch")
    begun = await keeper_call(handle, "POST", "/v1/start", body={"nonce": "n1"})
    assert begun.body["execution_state"] == "idle"

    bench.launcher.process.kill()
    await asyncio.to_thread(bench.launcher.start)
    found = await bench.started(kernel_id)
    assert found["endpoint"] == handle["endpoint"]
    assert found["epoch"] == handle["epoch"], "the same keeper, with its log"
    state = await keeper_call(found, "GET", "/v1/kernel")
    assert (state.body["pid"], state.body["incarnation"]) == (begun.body["pid"], 1)

    assert (await bench.launcher.delete(kernel_id)).body == {"gone": True}
    assert ProcessId.of(begun.body["pid"]) is None, "gone is proven when it is said"
    dead = (await bench.launcher.get(kernel_id)).body
    assert (dead["alive"], dead["reason"]) == (False, "it was deleted")


async def test_the_end_of_a_keeper_is_told_with_a_reason(bench: Bench) -> None:
    kernel_id = new_id()
    handle = await bench.started(kernel_id)
    stopped = await keeper_call(handle, "POST", "/v1/shutdown", body={"now": True})
    assert stopped.status == 200

    def told() -> dict[str, Any] | None:
        body = asyncio.run(bench.launcher.get(kernel_id)).body
        return None if body["alive"] else body

    assert (await until(told, what="the death is told"))["reason"]
