"""A gap is shown in the cell, and what a kernel's end left is answered: on a real keeper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast_protocol.frames import FrameType
from holdfast_protocol.jupyter import Message
from support.keeper_clients import PlainClient, StreamClient, execute, texts
from support.keeper_process import KeeperProcess, eventually, running_keeper

SMALL: dict[str, Any] = {
    "log_memory_bytes": 64 * 1024,
    "log_burst_bytes": 64 * 1024,
    "log_disk_bytes": 256 * 1024,
}


def reply_of(messages: list[Message], request: Message) -> dict[str, Any]:
    (reply,) = [m for m in messages if m.channel == "shell" and m.parent_id == request.msg_id]
    return reply.content_dict()


def notices_in(client: StreamClient | PlainClient, request: Message) -> list[str]:
    """What tells of gaps in the cell."""
    return [text for text in texts(client.messages, request) if "holdfast" in text]


async def lose_a_cell(client: StreamClient | PlainClient, keeper: KeeperProcess) -> Message:
    """Start a burst, go away, and let it and its reply fall out of the small log."""
    await client.connect()
    await client.run("echo begin")
    request = execute("burst 3000 200")
    await client.send(request)
    await client.until(lambda: client.outputs > 3)
    client.cut()
    other = StreamClient(keeper, "other")
    await other.connect()
    await other.run("burst 3000 200")  # this one reads along and pushes the other's entries out
    return request


async def all_logged(keeper: KeeperProcess, entries: int) -> None:
    async def logged() -> bool:
        state = await keeper.state()
        return int(state["log"]["head"]) > entries and state["execution_state"] == "idle"

    await eventually(logged)


@pytest.mark.parametrize("kind", [StreamClient, PlainClient])
async def test_a_gap_with_the_reply_in_it_ends_the_cell_with_an_error(
    tmp_path: Path, kind: type[StreamClient] | type[PlainClient]
) -> None:
    async with running_keeper(tmp_path / "k", **SMALL) as keeper:
        await keeper.start_kernel()
        client = kind(keeper, "victim")
        request = await lose_a_cell(client, keeper)
        await client.connect()
        await client.until(lambda: client.done(request))
        assert len(notices_in(client, request)) == 1
        assert "messages lost: log full" in notices_in(client, request)[0]
        reply = reply_of(client.messages, request)
        assert (reply["status"], reply["ename"]) == ("error", "HoldfastGap")
        assert reply["execution_count"] == 1, "the cell keeps its number"
        assert (await client.run("echo next"))[1] == ["next"]


@pytest.mark.parametrize("kind", [StreamClient, PlainClient])
async def test_a_gap_is_told_before_the_end_of_the_cell_that_came_after_it(
    tmp_path: Path, kind: type[StreamClient] | type[PlainClient]
) -> None:
    """A front end takes nothing more for a cell that has its reply and its idle."""
    async with running_keeper(tmp_path / "k", **SMALL) as keeper:
        await keeper.start_kernel()
        client = kind(keeper, "victim")
        await client.connect()
        await client.run("echo begin")
        request = execute("burst 3000 200")
        await client.send(request)
        await client.until(lambda: client.outputs > 3)
        client.cut()
        await all_logged(keeper, 3000)
        await client.connect()
        await client.until(lambda: client.done(request))
        notices = notices_in(client, request)
        assert len(notices) == 1
        assert "messages lost: log full" in notices[0]
        assert reply_of(client.messages, request)["status"] == "ok"
        shown = [text for text in texts(client.messages, request) if text != notices[0]]
        lost = 3000 - len(shown)
        assert 0 < lost <= int(notices[0].split()[-5]) < 3000, notices
        assert (await client.run("echo next"))[1] == ["next"]
        assert notices_in(client, request) == notices, "and not once more at the end"


async def test_a_gap_is_shown_once_over_reconnects(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", **SMALL) as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper, "victim")
        request = await lose_a_cell(client, keeper)
        for _ in range(3):  # the GAP is on its way each time, and the client never sees it
            await client.connect()
            assert client.ws is not None
            frame = b""
            while frame[:1] != bytes([FrameType.GAP]):
                frame = (await client.ws.receive(timeout=20)).data
            client.cut()
        assert not client.gaps
        await client.connect()
        await client.until(lambda: client.done(request))
        assert len(notices_in(client, request)) == 1


async def test_a_disk_that_cannot_be_written_is_a_gap_too(tmp_path: Path) -> None:
    preamble = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))"
    async with running_keeper(
        tmp_path / "k", preamble=preamble, log_memory_bytes=64 * 1024, log_burst_bytes=64 * 1024
    ) as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper, "victim")
        request = await lose_a_cell(client, keeper)
        await client.connect()
        await client.until(lambda: client.done(request))
        assert client.gaps
        assert "disk failed" in client.gaps[0].reason
        assert "log.disk_failed" in keeper.log_text()


async def test_what_the_kernel_dropped_is_shown_in_the_running_cell(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        _, output = await client.run("lose 214")
        assert output == [
            "holdfast: 214 messages lost: the kernel dropped them\n",
            "after the loss",
        ]


@pytest.mark.parametrize("code", ["crash", "restart"])
async def test_what_was_given_to_a_kernel_that_ended_is_answered_and_never_run_again(
    tmp_path: Path, code: str
) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        hang, queued = execute("hang"), execute("quiet")
        await client.send(hang)
        await client.send(queued)
        if code == "crash":
            await client.send(execute("crash"))
        else:
            status, state = await keeper.post("restart", None, Holdfast_After=f"s-1:{2}")
            assert (status, state["incarnation"]) == (200, 2)
        await client.until(lambda: client.done(hang) and client.done(queued))
        for request in (hang, queued):
            reply = reply_of(client.messages, request)
            assert (reply["status"], reply["ename"]) == ("error", "HoldfastRestarted")
        kinds = [m.msg_type for m in client.messages]
        errors = [m for m in client.messages if m.msg_type == "error"]
        assert {m.parent_id for m in errors} >= {hang.msg_id, queued.msg_id}
        word = "restarting" if code == "crash" else "starting"
        await client.until(
            lambda: word in [m.content_dict().get("execution_state") for m in client.messages[-3:]]
        )
        assert kinds  # the answers came before the lifecycle entry
        _, ran = await client.run("ran")
        assert json.loads(ran[0]) == ["ran"], "nothing old ran in the new kernel"


async def test_what_comes_between_incarnations_goes_to_the_next_in_order(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", env={"FAKE_READY_DELAY": "1.0"}) as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        await client.send(execute("crash"))
        await client.until(
            lambda: any(
                m.content_dict().get("execution_state") == "restarting" for m in client.messages
            )
        )
        cells = [execute(f"echo {number}") for number in range(20)]
        for cell in cells:
            await client.send(cell)
        assert (await keeper.state())["execution_state"] == "starting"
        await client.until(lambda: all(client.done(cell) for cell in cells))
        assert [texts(client.messages, cell) for cell in cells] == [[str(n)] for n in range(20)]


async def test_what_comes_before_the_first_start_waits_for_it(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        client = StreamClient(keeper)
        await client.connect()
        cell = execute("echo early")
        await client.live()
        await client.send(cell)
        await keeper.start_kernel()
        await client.until(lambda: client.done(cell))
        assert texts(client.messages, cell) == ["early"]


async def test_too_much_waiting_is_refused_with_an_answer(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", held_bytes=5000) as keeper:
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        fits, refused = execute("echo fits"), execute("echo " + "x" * 6000)
        await client.send(fits)
        await client.send(refused)
        await client.until(lambda: client.done(refused))
        assert reply_of(client.messages, refused)["ename"] == "HoldfastOverload"
        await keeper.start_kernel()
        await client.until(lambda: client.done(fits))


async def test_a_dead_kernel_refuses_with_its_reason_and_restart_brings_it_back(
    tmp_path: Path,
) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        request = execute("die")
        await client.send(request)
        assert await client.until_closed() == 4410
        reply = reply_of(client.messages, request)
        assert reply["ename"] == "HoldfastKernelDied"
        assert "it crashed too often" in reply["evalue"]
        assert client.byes[0].bye.detail == "it crashed too often"
        state = await keeper.state()
        assert (state["execution_state"], state["reason"]) == ("dead", "it crashed too often")
        status, state = await keeper.post("restart", None)
        assert (status, state["execution_state"]) == (200, "idle")
        again = StreamClient(keeper)
        await again.connect()
        assert (await again.run("echo back"))[1] == ["back"]
