"""The launcher with the real keeper and a real ipykernel."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from launcher_process import (
    LauncherProcess,
    keeper_call,
    new_id,
    proc,
    process_of,
    until,
    wait_gone,
)

from holdfast_launcher.config import KEEPER_ENTRY
from holdfast_launcher.environment import MARK, kernel_mark
from holdfast_launcher.processes import ProcessId, marked
from holdfast_protocol.jupyter import V1_SUBPROTOCOL, Message, decode_v1, encode_v1


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


async def test_another_keeper_takes_the_kernel_over(real: LauncherProcess) -> None:
    """kill -9 of the keeper: the same process, its variables, a new epoch, restarts as before."""
    kernel_id = new_id()
    handle = (await real.put(kernel_id, env={"KERNEL_TOPIC": "tides"})).body
    started = await keeper_call(handle, "POST", "/v1/start", body={"nonce": "n1"}, fence="1.12")
    kernel = ProcessId.of(started.body["pid"])
    assert kernel is not None
    async with plain_client(handle) as before:
        await before.run("x = 41")
    process_of(handle).send(signal.SIGKILL)
    second = await replaced(real, handle)
    assert second["epoch"] != handle["epoch"]
    assert second["credential"] == handle["credential"]
    async with plain_client(second) as after:
        # Nobody called /v1/start: what is sent is held until the kernel answers.
        assert await after.run("print(x + 1)") == "42\n"
    state = (await keeper_call(second, "GET", "/v1/kernel")).body
    assert (state["pid"], state["incarnation"]) == (kernel.pid, 1)
    assert state["fence"] == [1, 12], "what was acknowledged stays so"
    stale = await keeper_call(second, "POST", "/v1/restart", fence="1.11")
    assert stale.status == 412
    again = await keeper_call(second, "POST", "/v1/start", body={"nonce": "n1"}, fence="1.12")
    assert again.body["pid"] == kernel.pid, "a start finds it"
    kernel.send(signal.SIGKILL)
    async with plain_client(second) as crashed:
        topic = "import os; print(os.environ['KERNEL_TOPIC'], 'x' in dir())"
        assert await crashed.run_until(topic, "tides False\n")
    await real.delete(kernel_id, fence="1.12")
    assert marked(MARK, kernel_mark(kernel_id, "n1")) == []


async def test_a_keeper_that_falls_while_no_launcher_is_there(real: LauncherProcess) -> None:
    kernel_id = new_id()
    handle = (await real.put(kernel_id)).body
    started = await keeper_call(handle, "POST", "/v1/start", body={"nonce": "n1"})
    real.process.kill()
    process_of(handle).send(signal.SIGKILL)
    await wait_gone(process_of(handle))
    real.start()
    second = await replaced(real, handle)
    again = await keeper_call(second, "POST", "/v1/start", body={"nonce": "n1"})
    assert again.body["pid"] == started.body["pid"]
    await real.delete(kernel_id)


async def test_a_kernel_that_cannot_be_taken_over_ends(real: LauncherProcess) -> None:
    """Its record is there and of a living process, its connection file is not."""
    kernel_id = new_id()
    handle = (await real.put(kernel_id)).body
    started = await keeper_call(handle, "POST", "/v1/start", body={"nonce": "n1"})
    kernel = ProcessId.of(started.body["pid"])
    assert kernel is not None
    (real.directory(kernel_id) / "kernel" / "connection-1.json").unlink()
    process_of(handle).send(signal.SIGKILL)

    async def dead() -> str | None:
        body = (await real.get(kernel_id)).body
        return str(body["reason"]) if body.get("alive") is False else None

    assert "there is no kernel to adopt" in await until(dead, what="it is said to be dead")
    await wait_gone(kernel)
    await real.delete(kernel_id)


async def replaced(real: LauncherProcess, handle: dict[str, Any]) -> dict[str, Any]:
    """The handle of the keeper that follows."""

    async def found() -> dict[str, Any] | None:
        reply = await real.get(handle["kernel_id"])
        if reply.status == 503:
            assert reply.body["reason"] == "not_ready"
            return None
        assert reply.body["alive"] is True, reply.body
        return None if reply.body["epoch"] == handle["epoch"] else reply.body

    return await until(found, what="another keeper")


class PlainClient:
    """A v1 websocket client of a keeper."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def run(self, code: str) -> str:
        """Execute; its stdout once reply and idle came."""
        header = {
            "msg_id": new_id(),
            "msg_type": "execute_request",
            "session": "s",
            "version": "5.3",
        }
        header |= {"username": "ada", "date": "2026-01-01T00:00:00Z"}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        request = Message.from_dicts(channel="shell", header=header, content=content)
        await self._socket.send_bytes(encode_v1(request))
        text, left = "", {"idle", "reply"}
        while left:
            message = decode_v1(await self._socket.receive_bytes(timeout=30))
            if message.parent_id != header["msg_id"]:
                continue
            said = message.content_dict()
            if message.msg_type == "stream":
                text += said["text"]
            elif message.msg_type == "execute_reply":
                left.discard("reply")
            elif message.msg_type == "status" and said["execution_state"] == "idle":
                left.discard("idle")
        return text

    async def run_until(self, code: str, text: str) -> bool:
        """Again while the kernel's crash answers instead of the kernel."""
        for _attempt in range(20):
            if await self.run(code) == text:
                return True
        return False


@asynccontextmanager
async def plain_client(handle: dict[str, Any]) -> AsyncIterator[PlainClient]:
    endpoint = handle["endpoint"]
    url = f"http://{endpoint['host']}:{endpoint['port']}/v1/channels?session_id={new_id()}"
    headers = {"Authorization": f"Bearer {handle['credential']}", "Holdfast-Grants": "execute"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, headers=headers, protocols=(V1_SUBPROTOCOL,)) as socket,
    ):
        yield PlainClient(socket)


async def test_a_keeper_by_fork_is_light(real: LauncherProcess) -> None:
    """It shares the zygote's pages: what is its own is a small part of what it maps."""
    handle = (await real.put(new_id())).body
    rollup = proc(handle["engine_handle"]["pid"], "smaps_rollup").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
    private = kib["Private_Dirty"] + kib["Private_Clean"]
    print(f"keeper: {private} KiB private of {kib['Rss']} KiB resident")
    assert private < kib["Rss"] / 2
    await real.delete(handle["kernel_id"])


async def test_a_keeper_that_falls_before_its_new_launcher_could_ask_it(
    real: LauncherProcess,
) -> None:
    """Stopped, so that it does not answer, and then killed: the takeover is not disturbed."""
    kernel_id = new_id()
    handle = (await real.put(kernel_id)).body
    started = await keeper_call(handle, "POST", "/v1/start", body={"nonce": "n1"})
    real.process.kill()
    process_of(handle).send(signal.SIGSTOP)
    real.start()
    process_of(handle).send(signal.SIGKILL)
    second = await replaced(real, handle)
    again = await keeper_call(second, "POST", "/v1/start", body={"nonce": "n1"})
    assert again.body["pid"] == started.body["pid"]
    await real.delete(kernel_id)
    assert not real.logged("task failed", about="")
