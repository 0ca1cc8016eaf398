"""Plain v1 and legacy websocket clients against a real keeper process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from holdfast_protocol.jupyter import Message
from support.keeper_clients import PlainClient, StreamClient, execute, input_reply, texts
from support.keeper_process import running_keeper


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_cell_runs(tmp_path: Path, legacy: bool) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper, legacy=legacy)
        await client.connect()
        assert (await client.run("echo hello"))[1] == ["hello"]


@pytest.mark.parametrize("legacy", [False, True])
async def test_20_000_outputs_arrive_complete_and_in_order(tmp_path: Path, legacy: bool) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper, legacy=legacy)
        await client.connect()
        _, output = await client.run("burst 20000 100")
        assert [int(text.split()[0]) for text in output] == list(range(20000))
        await client.run("echo end")  # the pongs before it have proven the burst
        state = await keeper.state()
        assert state["log"]["floor"] > 19_000


async def test_a_reconnect_is_replayed_from_the_last_proven_entry(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper)
        await client.connect()
        first, _ = await client.run("echo proven")
        proven = len(client.messages)
        client.pongs = False
        second, _ = await client.run("echo unproven")
        client.cut()
        client.messages.clear()
        client.pongs = True
        await client.connect()
        third, _ = await client.run("echo after")
        # The batch of the first cell was proven, or its last part was not: at least once.
        assert texts(client.messages, second) == ["unproven"]
        assert texts(client.messages, third) == ["after"]
        assert len([m for m in client.messages if m.parent_id == first.msg_id]) <= proven


async def test_output_while_away_is_there_after_a_reconnect(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper)
        await client.connect()
        request = execute("burst 5000 50")
        await client.send(request)
        await client.until(lambda: client.outputs > 10)
        client.cut()
        await client.connect()
        await client.until(lambda: client.done(request))
        numbers = {int(text.split()[0]) for text in texts(client.messages, request)}
        assert numbers == set(range(5000))


async def test_without_a_session_id_there_is_no_resume(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper, None)
        await client.connect()
        await client.run("echo one")
        client.cut()
        client.messages.clear()
        await client.connect()
        second, _ = await client.run("echo two")
        assert texts(client.messages) == ["two"]
        assert all(m.parent_id in ("", second.msg_id) for m in client.messages)


async def test_a_new_session_starts_at_the_head_and_is_told_the_state(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        busy = PlainClient(keeper, "busy")
        await busy.connect()
        await busy.send(execute("hang"))
        await busy.until(lambda: busy.has("execute_input"))
        newcomer = PlainClient(keeper, "new")
        await newcomer.connect()
        await newcomer.until(lambda: bool(newcomer.messages))
        assert newcomer.messages[0].content_dict() == {"execution_state": "busy"}
        assert (
            newcomer.messages[0].header_dict["session"] == (await keeper.state())["kernel_session"]
        )


async def test_a_newer_connection_of_a_session_replaces_the_older(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        old, new = PlainClient(keeper, "same"), PlainClient(keeper, "same")
        await old.connect()
        await old.run("echo old")
        await new.connect()
        assert (await new.run("echo new"))[1] == ["new"]
        assert await old.until_closed() == 1000, "a browser must not come back and replace it"
        assert (await keeper.state())["connections"] == 1


def states(messages: list[Message]) -> list[str]:
    return [
        str(m.content_dict()["execution_state"])
        for m in messages
        if m.msg_type == "status" and not m.parent_id
    ]


@pytest.mark.parametrize("closes", [True, False])
async def test_restarting_comes_again_to_who_did_not_close(tmp_path: Path, closes: bool) -> None:
    """A client that reconnects because of ``restarting`` closes its websocket. One whose connection
    broke before a pong may have seen neither that word nor the answer to what it ran."""
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper)
        client.pongs = False
        await client.connect()
        hanging = execute("hang")
        await client.send(hanging)
        await client.send(execute("crash"))
        await client.until(lambda: "restarting" in states(client.messages))
        if closes:
            assert client.ws is not None
            await client.ws.close()
        else:
            client.cut()
        client.messages.clear()
        await client.connect()
        _, output = await client.run("echo after")
        assert output == ["after"]
        assert states(client.messages).count("restarting") == (0 if closes else 1)
        answers = [m for m in client.messages if m.channel == "shell"]
        assert (hanging.msg_id in [m.parent_id for m in answers]) is not closes


async def test_a_restart_that_was_asked_for_is_not_called_a_crash(tmp_path: Path) -> None:
    """On ``restarting`` JupyterLab tells the user that the kernel appears to have died."""
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper)
        await client.connect()
        hanging = execute("hang")
        await client.send(hanging)
        await keeper.post("restart", None)
        await client.until(lambda: client.done(hanging))
        await client.until(lambda: "starting" in states(client.messages))
        assert "restarting" not in states(client.messages)
        assert (await client.run("echo after"))[1] == ["after"]


async def test_an_input_request_comes_again_while_it_waits(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper)
        client.pongs = False
        await client.connect()
        request = execute("input")
        await client.send(request)
        await client.until(lambda: client.has("input_request"))
        client.cut()
        client.messages.clear()
        await client.connect()
        await client.until(lambda: "input_request" in [m.msg_type for m in client.messages])
        await client.send(input_reply("7"))
        await client.until(lambda: client.done(request))
        assert texts(client.messages, request) == ["got 7"]
        client.cut()
        client.messages.clear()
        await client.connect()
        await client.run("echo end")
        assert "input_request" not in [m.msg_type for m in client.messages]


async def test_drain_closes_with_1012_so_that_a_browser_comes_back(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper)
        await client.connect(tunnel="t-9")
        await client.run("echo one")
        await keeper.post("drain", {"tunnels": ["t-9"]})
        assert await client.until_closed() == 1012
        await client.connect()
        assert (await client.run("echo two"))[1] == ["two"]


async def test_a_dead_kernel_says_dead_and_closes_for_good(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper)
        await client.connect()
        request = execute("die")
        await client.send(request)
        assert await client.until_closed() == 1000
        assert client.done(request)
        dead = client.messages[-1].content_dict()
        assert (dead["execution_state"], dead["reason"]) == ("dead", "it crashed too often")
        late = PlainClient(keeper, "late")
        await late.connect()
        assert await late.until_closed() == 1000
        assert states(late.messages) == ["dead"]


async def test_binary_buffers_go_both_ways_in_legacy_framing(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper, legacy=True)
        await client.connect()
        request = execute("echo with buffers")
        carrying = Message(
            "shell",
            request.header,
            request.parent,
            request.metadata,
            request.content,
            (b"\x00\xff",),
        )
        await client.send(carrying)
        await client.until(lambda: client.done(request))


@pytest.mark.parametrize("legacy", [False, True])
async def test_what_is_no_message_closes_this_connection_only(tmp_path: Path, legacy: bool) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        good, bad = PlainClient(keeper, "good"), PlainClient(keeper, "bad", legacy=legacy)
        await good.connect()
        await bad.connect()
        assert bad.ws is not None
        await bad.ws.send_bytes(b"\x01\x02\x03")
        assert await bad.until_closed() == 4400
        assert (await good.run("echo fine"))[1] == ["fine"]


async def test_a_message_above_the_bound_closes_the_connection_and_is_not_run(
    tmp_path: Path,
) -> None:
    async with running_keeper(tmp_path / "k", message_bytes=100_000) as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper)
        await client.connect()
        with suppress(ConnectionError):
            await client.send(execute("echo " + "x" * 200_000))
        # 1006 when the reset overtakes the close frame, because we were still sending
        assert await client.until_closed() in (1009, 1006)
        async with asyncio.timeout(20):  # the keeper logs it once the peer has had its time
            while "connection.broken" not in keeper.log_text():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        await client.connect()
        assert (await client.run("ran"))[1] == ['["ran"]']


async def test_a_shim_and_a_browser_share_the_kernel(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        plain, stream = PlainClient(keeper, "a"), StreamClient(keeper, "b")
        await plain.connect()
        await stream.connect()
        await stream.until(lambda: stream.stream.numbered)
        await plain.run("burst 100 10")
        await stream.until(lambda: stream.outputs == 100)
        await asyncio.gather(plain.run("echo p"), stream.run("echo s"))
        assert (await keeper.state())["connections"] == 2
