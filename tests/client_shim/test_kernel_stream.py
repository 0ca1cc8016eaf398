"""A stream between a notebook and a fake keeper, cut, frozen and moved at every point."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from holdfast_client_shim.gateway import upstream
from holdfast_client_shim.stream import kernel_stream, uplink
from holdfast_protocol.frames import STREAM_SUBPROTOCOL, ByeReason
from holdfast_protocol.jupyter import V1_SUBPROTOCOL
from support.fake_stream_keeper import FakeGateway
from support.stream_scene import Book, eventually, execute, scene


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


async def test_cell_runs_and_is_acknowledged() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 100"))
        await book.wait_for(book.done())
        assert book.text() == numbers(100)
        await it.kernel.wait_for(lambda: it.kernel.acknowledged == it.kernel.log.index.head)


async def test_proxy_dies_in_mid_cell() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 150 0.002"))
        await book.wait_for(lambda: len(book.text()) > 50)
        await it.carrying().kill()
        await book.wait_for(book.done())
        assert book.text() == numbers(150)
        assert it.kernel.executed == ["print 150 0.002"]


@pytest.mark.parametrize("first", range(1, 22))
async def test_a_cut_at_any_frame_loses_and_doubles_nothing(first: int) -> None:
    """Frames in both directions are counted together; a cut before a frame is taken, and after."""
    async with scene() as it:
        for gateway in it.gateways:
            gateway.cut_at = iter(range(first, 400, max(first, 7)))
            gateway._next_cut = next(gateway.cut_at)
        book = it.attach()
        codes = [f"print {number} 0.001" for number in (6, 1, 3)]
        for count, code in enumerate(codes, 1):
            it.stream.from_notebook(execute(code))
            await book.wait_for(book.done(count))
        assert it.kernel.executed == codes
        assert book.text() == numbers(6) + numbers(1) + numbers(3)
        assert len(book.replies()) == 3
        assert [item.index for item in book.items] == list(range(1, len(book.items) + 1))


async def test_messages_sent_while_no_gateway_lives_arrive_once_in_order() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 1"))
        await book.wait_for(book.done())
        for gateway in it.gateways:
            await gateway.kill()
        codes = [f"print {number}" for number in range(20)]
        for code in codes:
            it.stream.from_notebook(execute(code))
        await it.gateways[1].start()
        await book.wait_for(book.done(21))
        assert it.kernel.executed == ["print 1", *codes]


async def test_messages_sent_before_the_first_connection() -> None:
    async with scene(1) as it:
        port = it.gateways[0].port
        await it.gateways[0].kill()
        book = it.attach()
        it.stream.from_notebook(execute("print 1"))
        it.stream.from_notebook(execute("print 2"))
        assert it.gateways[0].port == port
        await it.gateways[0].start()
        await book.wait_for(book.done(2))
        assert it.kernel.executed == ["print 1", "print 2"]


async def test_frozen_proxy_is_left() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 1500 0.002"))
        await book.wait_for(lambda: len(book.text()) > 20)
        frozen = it.carrying()
        frozen.freeze()
        await book.wait_for(book.done())
        assert book.text() == numbers(1500)
        assert any(g.connections for g in it.gateways if g is not frozen)
        frozen.thaw()
        # what the woken one still held changes nothing
        it.stream.from_notebook(execute("print 2"))
        await book.wait_for(book.done(2))
        assert book.text() == numbers(1500) + numbers(2)


async def test_a_gap_is_told_in_its_cell_before_that_ends() -> None:
    """A front end takes nothing more for a cell that has its reply and its idle."""
    async with scene(1) as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 100 0.002"))
        await book.wait_for(lambda: len(book.text()) > 5)
        await it.gateways[0].kill()
        await eventually(lambda: not it.kernel._running)
        index = it.kernel.log.index
        index.drop_oldest(index.size // 2, "log full")
        await it.gateways[0].start()
        await book.wait_for(book.done())
        missing = 100 - len(book.text())
        assert missing > 20
        (notice,) = [m for m in book.messages if m.msg_type == "stream" and b"lost" in m.content]
        assert notice.content_dict()["text"] == f"{missing} messages lost: log full\n"
        assert notice.parent_id == book.replies()[0].parent_id
        assert book.messages.index(notice) < book.messages.index(book.replies()[0])


async def test_entry_of_many_chunks_survives_cuts() -> None:
    async with scene() as it:
        for gateway in it.gateways:
            gateway.cut_at = iter(range(4, 200, 6))
            gateway._next_cut = next(gateway.cut_at)
        book = it.attach()
        it.stream.from_notebook(execute("big 3000000"))
        await book.wait_for(book.done())
        (shown,) = [m for m in book.messages if m.msg_type == "display_data"]
        assert shown.buffers == (b"x" * 3_000_000,)


async def test_notebook_that_comes_back_gets_what_it_had_not_proven() -> None:
    async with scene() as it:
        first = it.attach(proves=False)
        it.stream.from_notebook(execute("print 10"))
        await first.wait_for(first.done())
        first.items, proven = first.items[:4], first.items[3]
        it.stream.proven(proven.index)
        it.stream.detach(first)
        second = it.attach()
        await second.wait_for(second.done())
        assert second.items[0].index == proven.index + 1
        assert len(second.replies()) == 1


async def test_output_made_while_the_notebook_is_away_is_there_on_return() -> None:
    async with scene() as it:
        first = it.attach()
        it.stream.from_notebook(execute("print 100 0.002"))
        await first.wait_for(lambda: len(first.text()) > 5)
        it.stream.detach(first)
        await it.kernel.wait_for(lambda: it.kernel.executed == ["print 100 0.002"])
        second = it.attach()
        await second.wait_for(second.done())
        seen = {item.index: item for item in first.items + second.items}
        assert sorted(seen) == list(range(1, len(seen) + 1)), "complete"
        again = len(first.items) + len(second.items) - len(seen)
        assert again <= 2, "only what was not proven comes twice"


async def test_a_second_websocket_of_the_session_replaces_the_first() -> None:
    async with scene() as it:
        first = it.attach()
        second = it.attach()
        assert first.closed is not None
        assert first.closed[0] >= 1011
        it.stream.detach(first)  # jupyter_server reports the old one's end later
        it.stream.from_notebook(execute("print 3"))
        await second.wait_for(second.done())
        assert second.text() == numbers(3)


async def test_two_sessions_of_one_kernel() -> None:
    async with scene() as it:
        book = it.attach()
        other_stream = it.new_stream("s2")
        other = Book(other_stream)
        other_stream.attach(other)
        it.stream.from_notebook(execute("print 3"))
        await book.wait_for(book.done())
        other_stream.from_notebook(execute("print 2"))
        await other.wait_for(other.done())
        assert len(other.replies()) == 1
        assert len(book.replies()) == 1
        other_stream.close()


async def test_slow_notebook_stops_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_stream, "WINDOW_BYTES", 100_000)
    async with scene() as it:
        book = it.attach(proves=False)
        for _ in range(60):
            it.stream.from_notebook(execute("big 200000"))
        await it.kernel.wait_for(lambda: len(it.kernel.executed) == 60)
        upstream_now = it.stream._upstream
        assert upstream_now is not None
        await book.wait_for(lambda: upstream_now._paused)
        assert it.stream._outbox.bytes < 6_000_000
        book.proves = True
        book.prove()
        await book.wait_for(book.done(60))
        assert len([m for m in book.messages if m.msg_type == "display_data"]) == 60


async def test_new_epoch_answers_every_open_request() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("forever"))
        await it.kernel.wait_for(lambda: it.kernel.executed == ["forever"])
        for gateway in it.gateways:
            gateway.answer = (503, {"Retry-After": "0"})
            gateway.abort_all()
        it.stream.from_notebook(execute("print 1"))
        it.kernel.begin_epoch()
        for gateway in it.gateways:
            gateway.answer = None
        await book.wait_for(book.done(2))
        assert it.kernel.executed == ["forever"], "what another epoch was sent never runs in this"
        replies = [reply.content_dict() for reply in book.replies()]
        assert [reply["status"] for reply in replies] == ["error", "error"]
        assert all(line.startswith("holdfast: ") for line in book.text("stderr"))
        it.stream.from_notebook(execute("print 2"))
        await book.wait_for(book.done(3))
        assert book.text() == numbers(2)


async def test_gone_is_shown_and_ends_the_stream() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("forever"))
        await it.kernel.wait_for(lambda: it.kernel.executed == ["forever"])
        (connection,) = it.carrying().connections
        await connection.bye(ByeReason.GONE, come_back=False, detail="out of memory", code=4410)
        await book.wait_for(lambda: book.closed is not None)
        assert book.closed == (4410, "out of memory")
        states = [m.content_dict()["execution_state"] for m in book.messages
                  if m.msg_type == "status"]  # fmt: skip
        assert states[-1] == "dead"
        assert book.replies()[0].content_dict()["status"] == "error"
        assert it.gone == [it.stream]


async def test_drain_moves_to_the_other_proxy() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 100 0.002"))
        await book.wait_for(lambda: len(book.text()) > 5)
        drained = it.carrying()
        (connection,) = drained.connections
        await connection.bye(ByeReason.DRAIN, come_back=True, detail="", code=1012)
        await book.wait_for(book.done())
        assert book.text() == numbers(100)
        assert it.carrying() is not drained


async def test_missing_kernel_is_dead_for_holdfast() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 1"))
        await book.wait_for(book.done())
        for gateway in it.gateways:
            gateway.kernels.clear()
            gateway.abort_all()
        await book.wait_for(lambda: book.closed is not None)
        assert book.messages[-1].content_dict()["execution_state"] == "dead"


async def test_503_is_waited_out() -> None:
    async with scene() as it:
        for gateway in it.gateways:
            gateway.answer = (503, {"Retry-After": "0"})
        book = it.attach()
        it.stream.from_notebook(execute("print 1"))
        await eventually(lambda: it.gateways[0].upgrades >= 3)
        assert book.closed is None
        for gateway in it.gateways:
            gateway.answer = None
        await book.wait_for(book.done())


async def test_gateway_of_another_make() -> None:
    async with scene(1, subprotocol=V1_SUBPROTOCOL) as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 5"))
        await book.wait_for(book.done())
        old = it.stream._upstream
        it.gateways[0].abort_all()
        # what is written into a dead connection is lost there
        await eventually(lambda: it.stream._upstream is not old)
        it.stream.from_notebook(execute("print 3"))
        await book.wait_for(book.done(2))
        assert book.text() == numbers(5) + numbers(3)
        assert it.kernel.executed == ["print 5", "print 3"]


async def test_a_numbered_session_never_goes_on_without_numbers() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 1"))
        await book.wait_for(book.done())
        carrying = it.carrying()
        other = next(gateway for gateway in it.gateways if gateway is not carrying)
        other.subprotocol = V1_SUBPROTOCOL
        await carrying.kill()
        it.stream.from_notebook(execute("print 2"))
        await eventually(lambda: other.upgrades >= 2)
        assert it.kernel.executed == ["print 1"]
        other.subprotocol = STREAM_SUBPROTOCOL
        await book.wait_for(book.done(2))
        assert it.kernel.executed == ["print 1", "print 2"]


async def test_full_send_buffer_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink, "SEND_LIMIT_BYTES", 2_000)
    async with scene(1) as it:
        await it.gateways[0].kill()
        book = it.attach()
        for number in range(30):
            it.stream.from_notebook(execute(f"print {number}"))
        refused = len(book.replies())
        assert 0 < refused < 30
        await it.gateways[0].start()
        await book.wait_for(book.done(30))
        assert it.kernel.executed == [f"print {number}" for number in range(30 - refused)]


async def test_what_the_notebook_sent_is_delivered_after_it_left() -> None:
    async with scene(1) as it:
        await it.gateways[0].kill()
        book = it.attach()
        it.stream.from_notebook(execute("print 1"))
        it.stream.detach(book)
        assert not it.stream.idle
        await it.gateways[0].start()
        await it.kernel.wait_for(lambda: it.kernel.executed == ["print 1"])
        await eventually(lambda: it.stream.idle and not it.gateways[0].connections)


async def test_after_waits_for_the_first_contact() -> None:
    async with scene(1) as it:
        await it.gateways[0].kill()
        it.attach()
        it.stream.from_notebook(execute("print 1"))
        assert it.stream.after() is None
        waiting = asyncio.ensure_future(it.stream.wait_numbered(5))
        await it.gateways[0].start()
        await waiting
        assert it.stream.after() == "s1:1"


async def test_a_stream_that_rests_has_nothing_to_wait_for() -> None:
    """Its keeper may have been replaced: the next one never hears of these numbers."""
    async with scene(1) as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 1"))
        await book.wait_for(book.done())
        it.stream.detach(book)
        await eventually(lambda: it.stream.idle and not it.gateways[0].connections)
        it.kernel.begin_epoch()
        assert it.stream.after() is None


@pytest.mark.parametrize(
    ("now", "last_byte", "pinged", "expected"),
    [
        (10.0, 9.5, 0.0, (False, False, 10.5)),
        (10.0, 9.0, 0.0, (True, False, 11.0)),
        (10.9, 9.0, 10.0, (False, False, 11.0)),
        (11.0, 9.0, 10.0, (False, True, 11.0)),
        # the loop stood still for a minute: nobody is given up unasked
        (70.0, 9.0, 8.0, (True, False, 71.0)),
    ],
)
def test_silence(
    now: float, last_byte: float, pinged: float, expected: tuple[bool, bool, float]
) -> None:
    assert upstream.silence(now=now, last_byte=last_byte, pinged=pinged) == expected


async def test_a_gateway_that_takes_and_closes_is_not_stormed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(self: object, kernel: object, session: str, ws: web.WebSocketResponse) -> None:
        await ws.close(code=1011, message=b"not today")

    monkeypatch.setattr(FakeGateway, "_plain", refuse)
    async with scene(1, subprotocol=V1_SUBPROTOCOL) as it:
        it.attach()
        with pytest.raises(TimeoutError):
            await eventually_dialled(it.gateways[0], 40)
        assert it.gateways[0].upgrades > 3, "it goes on all the same"


async def eventually_dialled(gateway: FakeGateway, count: int) -> None:
    async with asyncio.timeout(1):
        while gateway.upgrades < count:  # noqa: ASYNC110 - the gateway has no event for it
            await asyncio.sleep(0.01)
