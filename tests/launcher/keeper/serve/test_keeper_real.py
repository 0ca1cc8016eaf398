"""A whole keeper: the serving side with the real kernel side and a real ipykernel."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from holdfast_protocol.jupyter import Message, encode_v1
from support.keeper_clients import PlainClient, StreamClient, execute, input_reply, texts
from support.keeper_process import process_file, running_keeper

pytestmark = pytest.mark.e2e

DISPLAY = "for i in range({n}): display({{'text/plain': str(i)}}, raw=True)"


def displayed(messages: list[Message], request: Message) -> list[int]:
    return [
        int(m.content_dict()["data"]["text/plain"])
        for m in messages
        if m.msg_type == "display_data" and m.parent_id == request.msg_id
    ]


def reply_of(messages: list[Message], request: Message) -> dict[str, Any]:
    (reply,) = [m for m in messages if m.channel == "shell" and m.parent_id == request.msg_id]
    return reply.content_dict()


async def test_each_cell_runs_once_and_no_output_is_lost_under_cuts(tmp_path: Path) -> None:
    """Counted by a side file that each cell appends to."""
    side = tmp_path / "side"
    async with running_keeper(tmp_path / "k", fake=False) as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        cells = []
        for number in range(20):
            await client.connect()
            code = f"open({str(side)!r}, 'a').write('{number}\\n')\n" + DISPLAY.format(n=40)
            cell = execute(code)
            cells.append(cell)
            client.stream.send(encode_v1(cell))
            for _ in range(1 + number % 5):
                await client.step()
            client.cut()
        await client.connect()
        await client.until(lambda: all(client.done(cell) for cell in cells))
        assert side.read_text().split() == [str(number) for number in range(20)]
        for cell in cells:
            assert displayed(client.messages, cell) == list(range(40))
            assert reply_of(client.messages, cell)["status"] == "ok"


async def test_5_000_outputs_of_one_cell_arrive_in_order_at_each_kind_of_client(
    tmp_path: Path,
) -> None:
    async with running_keeper(tmp_path / "k", fake=False) as keeper:
        await keeper.start_kernel()
        stream = StreamClient(keeper, "stream")
        clients: list[StreamClient | PlainClient] = [
            stream,
            PlainClient(keeper, "v1"),
            PlainClient(keeper, "legacy", legacy=True),
        ]
        for client in clients:
            await client.connect()
        await stream.live()
        cell = execute(DISPLAY.format(n=5_000))
        await stream.send(cell)
        await asyncio.gather(
            *(client.until(lambda client=client: client.idle(cell)) for client in clients)
        )
        for client in clients:
            assert displayed(client.messages, cell) == list(range(5_000))


async def test_restart_answers_what_ran_and_the_next_output_is_there(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", fake=False) as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.run("x = 1")
        old = [execute("import time; time.sleep(60)"), execute("x = 2")]
        for cell in old:
            await client.send(cell)
        status, state = await keeper.post("restart", None, Holdfast_After="s-1:3")
        assert (status, state["incarnation"]) == (200, 2)
        await client.until(lambda: all(client.done(cell) for cell in old))
        enames = [reply_of(client.messages, cell)["ename"] for cell in old]
        # ipykernel itself may still say that the first one was interrupted
        assert enames[1] == "HoldfastRestarted"
        assert (await client.run("print('x' in globals())"))[1] == ["False\n"]


async def test_a_crash_is_answered_and_the_kernel_comes_back(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", fake=False) as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        crash, queued = execute("import os; os._exit(1)"), execute("print('old')")
        await client.send(crash)
        await client.send(queued)
        await client.until(lambda: client.done(crash) and client.done(queued))
        assert reply_of(client.messages, crash)["ename"] == "HoldfastRestarted"
        assert (await client.run("print('new')"))[1] == ["new\n"]
        assert texts(client.messages, queued) == []


async def test_an_interrupt_right_after_the_cell_stops_it(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", fake=False) as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        for number in range(1, 4):
            cell = execute("import time; time.sleep(60)")
            await client.send(cell)
            status, _ = await keeper.post("interrupt", None, Holdfast_After=f"s-1:{number}")
            assert status == 200
            await client.until(lambda cell=cell: client.done(cell))
            assert reply_of(client.messages, cell)["ename"] == "KeyboardInterrupt"


async def test_input_over_a_cut(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", fake=False) as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        cell = execute("print(input('name? '))")
        await client.send(cell)
        await client.until(lambda: client.has("input_request"))
        client.cut()
        await client.connect()
        await client.send(input_reply("Ada"))
        await client.until(lambda: client.done(cell))
        assert texts(client.messages, cell) == ["Ada\n"]


async def test_the_kernel_sees_no_secret(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", fake=False) as keeper:
        state = await keeper.start_kernel()
        for name in ("environ", "cmdline"):
            assert "keeper-credential" not in process_file(state["pid"], name)
        assert keeper.keeper_file()["kernel"]["pid"] == state["pid"]


async def test_a_killed_keeper_is_replaced_by_one_that_adopts_the_kernel(tmp_path: Path) -> None:
    """Variables stay, a new epoch begins, the client is told of the gap."""
    async with running_keeper(tmp_path / "k", fake=False) as first:
        before = await first.start_kernel()
        client = StreamClient(first)
        await client.connect()
        await client.run("x = 41")
        first.signal(signal.SIGKILL)
        await first.wait_ended()
        client.cut()
        async with running_keeper(tmp_path / "k", fake=False, adopt=True) as second:
            assert second.keeper_file()["kernel"]["pid"] == before["pid"], "kept until adopted"
            after = await second.start_kernel()
            assert after["pid"] == before["pid"]
            assert after["epoch"] != before["epoch"]
            client.keeper = second
            await client.connect()
            await client.live()
            assert (await client.run("print(x + 1)"))[1] == ["42\n"]
            assert client.gaps, "and said so"


async def test_shutdown_ends_kernel_and_keeper(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", fake=False) as keeper:
        state = await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.run("1")
        call = asyncio.ensure_future(keeper.post("shutdown", {"now": False}))
        assert await client.until_closed() == 4410
        assert (await call)[1]["execution_state"] == "dead"
        await keeper.wait_ended()
        assert not Path(f"/proc/{state['pid']}").exists()  # noqa: ASYNC240  # one stat
