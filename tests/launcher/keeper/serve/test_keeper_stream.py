"""``v1.stream.holdfast`` against a real keeper process: resume, superseding, bounds, goodbyes."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import aiohttp
import pytest

from holdfast_protocol.errors import CloseCode
from holdfast_protocol.frames import (
    NO_EPOCH,
    STREAM_SUBPROTOCOL,
    Ack,
    Bye,
    ByeReason,
    ClientData,
    Resume,
    Resumed,
    decode,
)
from holdfast_protocol.jupyter import encode_v1
from holdfast_protocol.stream.client import Delivered
from support.keeper_clients import StreamClient, execute, input_reply, texts
from support.keeper_process import KeeperProcess, running_keeper


async def closing(ws: aiohttp.ClientWebSocketResponse) -> tuple[list[bytes], int]:
    """What a websocket still gets, and how it is closed."""
    frames = []
    while (message := await ws.receive(timeout=20)).type in (
        aiohttp.WSMsgType.BINARY,
        aiohttp.WSMsgType.PING,
    ):
        if message.type is aiohttp.WSMsgType.BINARY:
            frames.append(message.data)
    return frames, ws.close_code or 1006


async def raw(keeper: KeeperProcess, session: str, *frames: bytes) -> tuple[list[bytes], int]:
    """Send frames as they are; what comes back until the keeper closes."""
    ws = await keeper.websocket(session, STREAM_SUBPROTOCOL)
    for frame in frames:
        await ws.send_bytes(frame)
    return await closing(ws)


async def test_a_cell_runs_and_its_output_is_trimmed_when_acknowledged(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        assert (await client.run("echo hello"))[1] == ["hello"]
        _, output = await client.run("burst 2000 100")
        assert [int(text.split()[0]) for text in output] == list(range(2000))
        await client.run("echo end")  # its frames acknowledge what came before
        state = await keeper.state()
        assert state["log"]["head"] - state["log"]["floor"] < 20
        assert state["connections"] == 1


async def test_every_cut_resumes_whole_and_in_order(tmp_path: Path) -> None:
    """The connection is cut after each frame in turn while requests and output flow."""
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        requests = []
        for number in range(25):
            await client.connect()
            request = execute(f"burst 20 {number % 7 * 50 + 20}")
            requests.append(request)
            client.stream.send(encode_v1(request))  # goes out when RESUMED comes
            for _ in range(number % 6):
                await client.step()
            client.cut()
        await client.connect()
        await client.until(lambda: all(client.done(request) for request in requests))
        for request in requests:
            numbers = [int(text.split()[0]) for text in texts(client.messages, request)]
            assert numbers == list(range(20))
        _, ran = await client.run("ran")
        assert ran[0].count("burst") == len(requests), "each ran once"


async def test_frames_that_were_never_read_are_not_lost(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        request = execute("burst 3000 200")
        await client.send(request)
        await client.until(lambda: len(client.messages) > 10)
        client.cut()
        await client.connect()
        await client.until(lambda: client.done(request))
        numbers = [int(text.split()[0]) for text in texts(client.messages, request)]
        assert numbers == list(range(3000))


async def test_a_higher_attempt_takes_over_and_the_old_connection_is_told(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.run("echo one")
        old, client.ws = client.ws, None
        assert old is not None
        client.stream.disconnected()
        await client.connect()
        assert (await client.run("echo two"))[1] == ["two"]
        frames, code = await closing(old)
        bye = decode(frames[-1])
        assert isinstance(bye, Bye)
        assert (bye.reason, bye.come_back, code) == (ByeReason.SUPERSEDED, False, CloseCode.GONE)
        assert (await keeper.state())["connections"] == 1


async def test_a_lower_attempt_and_a_replaced_client_are_refused(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper, "s")
        client.stream.attempt = 5
        await client.connect()
        await client.run("echo hello")
        lower = Resume(client.stream.client_id, 3, client.stream.epoch)
        frames, code = await raw(keeper, "s", lower.encode())
        assert code == CloseCode.GONE
        assert isinstance(decode(frames[0]), Bye)
        newcomer = StreamClient(keeper, "s")
        await newcomer.connect()
        assert (await newcomer.run("echo new"))[1] == ["new"]
        replaced = Resume(client.stream.client_id, 9, client.stream.epoch)
        frames, code = await raw(keeper, "s", replaced.encode())
        assert code == CloseCode.GONE


async def test_a_new_client_goes_on_where_the_last_acknowledged(tmp_path: Path) -> None:
    """The notebook server was restarted: zero epoch, replay, numbering after ``accepted``."""
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        first = StreamClient(keeper, "s")
        await first.connect()
        await first.run("echo seen")
        first.acks = False
        request, _ = await first.run("burst 50 10")
        first.cut()
        second = StreamClient(keeper, "s")
        await second.connect()
        await second.until(lambda: second.done(request))
        assert len(texts(second.messages, request)) == 50
        assert (await second.run("echo third"))[1] == ["third"]
        assert second.stream.last_seq == 3


async def test_another_epoch_is_a_gap_not_a_guess(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        ws = await keeper.websocket("s", STREAM_SUBPROTOCOL)
        await ws.send_bytes(Resume(uuid.uuid4().bytes, 1, b"e" * 16, seq=77).encode())
        resumed, gap = decode((await ws.receive()).data), decode((await ws.receive()).data)
        assert isinstance(resumed, Resumed)
        assert resumed.epoch.hex() == (await keeper.state())["epoch"]
        assert type(gap).__name__ == "Gap"
        await ws.close()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", CloseCode.BAD_FRAME),
        (b"\x63", CloseCode.BAD_FRAME),
        (Ack(99).encode(), CloseCode.ACK_AHEAD),
        (ClientData(5, (encode_v1(execute("echo no")),)).encode(), CloseCode.SEQ_SKIPPED),
        (ClientData(1, (b"not a message",)).encode(), CloseCode.BAD_FRAME),
        (Resume(b"x" * 16, 2).encode(), CloseCode.BAD_FRAME),
    ],
)
async def test_what_cannot_be_is_refused_with_its_code(
    tmp_path: Path, frame: bytes, code: CloseCode
) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        _, closed = await raw(keeper, "s", Resume(b"x" * 16, 1, NO_EPOCH).encode(), frame)
        assert closed == code
        assert "connection.refused" in keeper.log_text()


async def test_a_decreasing_ack_is_refused(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.run("burst 20 10")
        assert client.ws is not None
        await client.ws.send_bytes(Ack(client.stream.position).encode())
        await client.ws.send_bytes(Ack(1).encode())
        assert await client.until_closed() == CloseCode.ACK_BACKWARD


async def test_a_reader_may_not_send(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        reader = StreamClient(keeper, "reader")
        await reader.connect(grants="read")
        writer = StreamClient(keeper, "writer")
        await writer.connect()
        await reader.live()
        await writer.run("echo for all")
        await reader.until(lambda: texts(reader.messages) == ["for all"])
        await reader.send(execute("echo forbidden"))
        assert await reader.until_closed() == CloseCode.POLICY
        assert (await writer.run("ran"))[1] == ['["echo for all", "ran"]']


async def test_drain_says_come_back_to_the_named_tunnels_only(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        going, staying = StreamClient(keeper, "a"), StreamClient(keeper, "b")
        await going.connect(tunnel="proxy-1:7")
        await staying.connect(tunnel="proxy-2:1")
        await going.run("echo a")
        await staying.run("echo b")
        status, body = await keeper.post("drain", {"tunnels": ["proxy-1:7", "unknown"]})
        assert (status, body) == (200, {"drained": ["proxy-1:7"]})
        assert await going.until_closed() == CloseCode.COME_BACK
        assert [(b.bye.reason, b.bye.come_back) for b in going.byes] == [(ByeReason.DRAIN, True)]
        assert (await staying.run("echo still"))[1] == ["still"]
        await going.connect()
        assert (await going.run("echo back"))[1] == ["back"]


async def test_shutdown_gives_everything_then_gone(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.run("echo hello")
        client.messages.clear()
        request = execute("hang")
        await client.send(request)
        await client.until(lambda: client.has("execute_input"))
        shutdown = asyncio.ensure_future(keeper.post("shutdown", {"now": False}))
        assert await client.until_closed() == CloseCode.GONE
        status, state = await shutdown
        assert (status, state["execution_state"]) == (200, "dead")
        assert client.done(request), "what it left is answered"
        assert client.messages[-1].content_dict()["execution_state"] == "dead"
        assert [(b.bye.reason, b.bye.come_back) for b in client.byes] == [(ByeReason.GONE, False)]
        await keeper.wait_ended()


async def test_input_waits_over_a_cut(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        request = execute("input")
        await client.send(request)
        await client.until(lambda: client.has("input_request"))
        client.cut()
        await client.connect()
        await client.live()
        await client.send(input_reply("42"))
        await client.until(lambda: client.done(request))
        assert texts(client.messages, request) == ["got 42"]


async def test_control_passes_while_a_long_entry_is_on_its_way(tmp_path: Path) -> None:
    """64 MB to a reader that does not take it: what it sends, and an interrupt, pass."""
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        reader = StreamClient(keeper, "reader")
        await reader.connect()
        big = execute("big 64000000")
        await reader.live()
        await reader.send(big)
        while reader.stream._partial is None:
            await reader.step()
        hang = execute("hang")
        await reader.send(hang)
        status, _ = await keeper.post("interrupt", None, Holdfast_After="reader:2")
        assert status == 200
        assert (await keeper.state())["execution_state"] == "idle", "hang was interrupted"
        assert not reader.done(big), "the long entry is not through yet"
        await reader.until(lambda: reader.done(hang))
        assert reader.done(big)
        assert max(reader.sizes) > 64_000_000


async def test_two_notebooks_on_one_kernel(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        a, b = StreamClient(keeper, "a"), StreamClient(keeper, "b")
        await a.connect()
        await b.connect()
        await b.live()
        _, output = await a.run("echo from a")
        await b.until(lambda: texts(b.messages) == ["from a"])
        assert all(message.channel == "iopub" for message in b.messages), "replies are a's"
        assert output == ["from a"]


async def test_a_slow_reader_costs_disk_not_memory(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", log_burst_bytes=16_000_000) as keeper:
        await keeper.start_kernel()
        slow, driver = StreamClient(keeper, "slow"), StreamClient(keeper, "driver")
        await slow.connect()
        await slow.live()
        await driver.connect()
        await driver.run("echo begin")
        before = resident(keeper.pid)
        for _ in range(4):
            await driver.run("burst 1000 20000")  # 80 MB that slow does not read
        assert resident(keeper.pid) - before < 40_000_000
        state = await keeper.state()
        assert state["log"]["bytes"] > 70_000_000
        await slow.until(lambda: slow.outputs >= 4001)
        assert not slow.gaps


def resident(pid: int) -> int:
    """Bytes of resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


#: Seconds of the real timers, made shorter in the keeper process.
QUICK = """
import holdfast_launcher.keeper.serve.clients.connection as connection
import holdfast_launcher.keeper.serve.http as http
connection.IDLE_PING = 0.1
connection.RESUME_TIMEOUT = 0.3
http.HEARTBEAT = 0.6
"""


async def test_an_idle_connection_is_pinged_and_a_dead_peer_is_closed(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", preamble=QUICK) as keeper:
        await keeper.start_kernel()
        alive, dead = StreamClient(keeper, "alive"), StreamClient(keeper, "dead")
        await alive.connect()
        await alive.live()
        await dead.connect()
        await dead.live()
        async with asyncio.timeout(20):
            while (await keeper.state())["connections"] == 2:
                await alive.step()
        assert alive.pings > 3
        assert (await alive.run("echo alive"))[1] == ["alive"]


async def test_a_connection_that_never_resumes_is_closed(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", preamble=QUICK) as keeper:
        await keeper.start_kernel()
        assert await raw(keeper, "s") == ([], CloseCode.BAD_FRAME)


async def test_many_small_messages_are_acknowledged_by_count_and_by_time(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        for _ in range(130):
            client.stream.send(encode_v1(execute("quiet")))
        await client.flush()
        await client.until(lambda: client.stream.pending_bytes == 0)


async def test_an_entry_delivered_twice_would_be_seen(tmp_path: Path) -> None:
    """The position check at the client is live: no event is ever delivered twice."""
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        seqs: list[int] = []
        request = execute("burst 400 100")
        client.stream.send(encode_v1(request))
        while not client.done(request):
            await client.connect()
            for _ in range(4):
                seqs += [e.seq for e in await client.step() if isinstance(e, Delivered)]
            client.cut()
        assert seqs == sorted(set(seqs))
