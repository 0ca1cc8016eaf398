"""A stream's successor in a new process: what it takes up, what it calls lost, what it must not.

Here the old stream's record is handed over in memory; ``tests/e2e`` does it with real processes.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from holdfast_client_shim.stream.record import (
    ACCEPTED,
    RequestRecord,
    StreamRecord,
    never_sent,
)
from holdfast_protocol.frames import NO_EPOCH, STREAM_SUBPROTOCOL
from holdfast_protocol.jupyter import V1_SUBPROTOCOL, decode_v1
from support.stream_scene import execute, scene


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def request(seq: int | None) -> RequestRecord:
    return RequestRecord("shell", {"msg_id": f"m{seq}"}, seq)


@pytest.mark.parametrize(
    ("accepted", "lost"),
    [(None, []), (0, [None, 3, 4]), (2, [3, 4]), (3, [4]), (9, [])],
)
def test_only_what_no_keeper_has_is_lost(accepted: int | None, lost: list[int | None]) -> None:
    record = StreamRecord("k", "s", requests=tuple(request(seq) for seq in (ACCEPTED, None, 3, 4)))
    assert [one.seq for one in never_sent(record, accepted)] == lost


async def test_a_running_cell_goes_on_in_the_next_process() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 150 0.002"))
        await book.wait_for(lambda: len(book.text()) > 50)
        seen = len(book.text())
        it.restart()
        after = it.attach()
        await after.wait_for(after.done())
        texts = after.text()
        assert sorted({*book.text()[:seen], *texts}, key=int) == numbers(150)
        assert texts == numbers(150)[-len(texts) :], "in order, from some place on"
        assert it.kernel.executed == ["print 150 0.002"]


async def test_the_successor_numbers_on_and_nothing_runs_twice() -> None:
    async with scene() as it:
        book = it.attach()
        for _ in range(3):
            it.stream.from_notebook(execute("print 1"))
        await book.wait_for(book.done(3))
        await it.kernel.wait_for(lambda: it.kernel.acknowledged == it.kernel.log.index.head)
        it.restart()
        after = it.attach()
        it.stream.from_notebook(execute("print 2"))
        await after.wait_for(after.done())
        assert it.kernel.executed == ["print 1"] * 3 + ["print 2"]
        record = it.stream.record()
        assert (record.epoch, record.requests) == (it.kernel.epoch, ())


async def test_a_note_older_than_the_keepers_own_place_will_do() -> None:
    """The note says 0; the keeper has trimmed up to what was acknowledged and refuses that."""
    async with scene(1) as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 100"))
        await book.wait_for(book.done())
        await it.kernel.wait_for(lambda: it.kernel.acknowledged == it.kernel.log.index.head)
        it.restart(replace(it.stream.record(), position=0))
        after = it.attach()
        it.stream.from_notebook(execute("print 3"))
        await after.wait_for(after.done())
        assert after.text() == numbers(3), "neither repeated nor failed"
        assert after.text("stderr") == []
        assert it.kernel.executed == ["print 100", "print 3"]


async def test_what_was_never_sent_is_called_lost() -> None:
    async with scene(1) as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 1"))
        await book.wait_for(book.done())
        await it.gateways[0].kill()
        await asyncio.sleep(0)
        unsent = execute("print 2")
        it.stream.from_notebook(unsent)
        it.restart()
        after = it.attach()
        it.stream.from_notebook(execute("print 3"))
        await it.gateways[0].start()
        await after.wait_for(after.done(2))
        assert it.kernel.executed == ["print 1", "print 3"]
        (lost,) = [m for m in after.replies() if m.content_dict()["status"] == "error"]
        assert lost.parent_id == decode_v1(unsent).msg_id
        assert "was restarted before it could" in after.text("stderr")[0]


async def test_what_was_never_sent_before_the_first_contact() -> None:
    async with scene(1) as it:
        await it.gateways[0].kill()
        it.attach()
        it.stream.from_notebook(execute("print 1"))
        record = it.stream.record()
        assert [(one.seq, record.epoch) for one in record.requests] == [(None, NO_EPOCH)]
        it.restart()
        after = it.attach()
        await it.gateways[0].start()
        await after.wait_for(after.done())
        assert after.replies()[0].content_dict()["status"] == "error"
        assert it.kernel.executed == []


async def test_a_keeper_that_was_replaced_meanwhile_is_noticed() -> None:
    """What the other log has comes whole, and the cell that the old one knew is closed."""
    async with scene(1) as it:
        it.attach()
        it.stream.from_notebook(execute("forever"))
        await it.kernel.wait_for(lambda: it.kernel.executed == ["forever"])
        record = it.stream.record()
        it.stream.close()
        it.kernel.begin_epoch()
        it.kernel.publish("stream", {"name": "stdout", "text": "meanwhile\n"})
        it.restart(record)
        after = it.attach()
        it.stream.from_notebook(execute("print 1"))
        await after.wait_for(after.done(2))
        assert "meanwhile" in after.text()
        (lost,) = [m for m in after.replies() if m.content_dict()["status"] == "error"]
        assert "was replaced" in lost.content_dict()["evalue"]
        assert it.kernel.executed == ["forever", "print 1"], "what is new goes out"
        assert it.stream.record().requests == ()


async def test_open_requests_are_handed_on_twice() -> None:
    """A server that dies again before any notebook or gateway came back forgets nothing."""
    async with scene(1) as it:
        it.attach()
        it.stream.from_notebook(execute("forever"))
        await it.kernel.wait_for(lambda: it.kernel.executed == ["forever"])
        await it.gateways[0].kill()
        first = it.stream.record()
        it.restart()
        assert it.stream.record() == first
        await it.gateways[0].start()
        it.attach()
        await it.wait_status(lambda s: s["state"] == "connected" and s["resumed"] is not None)
        (open_,) = it.stream.record().requests
        assert open_.seq == ACCEPTED
        it.stream.over("the kernel is gone", failed=False)


async def test_a_kernel_that_is_gone_closes_what_the_last_process_had_open() -> None:
    async with scene(1) as it:
        it.attach()
        it.stream.from_notebook(execute("forever"))
        await it.kernel.wait_for(lambda: it.kernel.executed == ["forever"])
        it.restart()
        del it.gateways[0].kernels["k1"]
        after = it.attach()
        await after.wait_for(after.done())
        assert after.replies()[0].content_dict()["status"] == "error"


async def test_what_waited_for_a_plain_gateway_goes_to_a_holdfast_one() -> None:
    async with scene(1, subprotocol=V1_SUBPROTOCOL) as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 1"))
        await book.wait_for(book.done())
        await it.gateways[0].kill()
        it.gateways[0].subprotocol = STREAM_SUBPROTOCOL
        await it.wait_status(lambda s: s["state"] == "resuming")
        it.stream.from_notebook(execute("print 2"))
        await it.gateways[0].start()
        await it.kernel.wait_for(lambda: it.kernel.executed == ["print 1", "print 2"])


async def test_a_plain_gateways_break_is_said_in_the_cells_that_were_open() -> None:
    """Nobody can tell what was lost, so the cell is not closed; what had not gone out is not
    spoken of, because it goes out now."""
    async with scene(1, subprotocol=V1_SUBPROTOCOL) as it:
        book = it.attach()
        it.stream.from_notebook(execute("forever"))
        await it.kernel.wait_for(lambda: it.kernel.executed == ["forever"])
        await it.gateways[0].kill()
        await it.wait_status(lambda s: s["state"] == "resuming")
        it.stream.from_notebook(execute("print 2"))
        await it.gateways[0].start()
        await book.wait_for(book.done())
        (said,) = book.text("stderr")
        assert "cannot repeat what it lost" in said
        assert book.text() == ["0", "1"]


async def test_behind_a_plain_gateway_a_successor_calls_nothing_lost() -> None:
    """The note may be older than the answer; who waits is told that none may come."""
    async with scene(1, subprotocol=V1_SUBPROTOCOL) as it:
        book = it.attach()
        first = execute("print 1")
        it.stream.from_notebook(first)
        old = it.stream.record()
        assert [one.seq for one in old.requests] == [None]
        await book.wait_for(book.done())
        it.restart(old)
        after = it.attach()
        it.stream.from_notebook(execute("print 2"))
        await after.wait_for(after.done())
        assert [m.content_dict()["status"] for m in after.replies()] == ["ok"]
        (said,) = after.text("stderr")
        assert "if nothing more comes here, run this again" in said
        assert it.kernel.executed == ["print 1", "print 2"]


async def test_what_came_from_a_plain_gateway_proves_nothing_of_a_log() -> None:
    """It was counted by us; a keeper's numbers are others."""
    async with scene(1, subprotocol=V1_SUBPROTOCOL) as it:
        book = it.attach(proves=False)
        it.stream.from_notebook(execute("print 30"))
        await book.wait_for(book.done())
        plain = len(book.items)
        it.stream.from_notebook(execute("forever"))
        await it.kernel.wait_for(lambda: "forever" in it.kernel.executed)
        await it.gateways[0].kill()
        it.gateways[0].subprotocol = STREAM_SUBPROTOCOL
        it.kernel.begin_epoch()
        await it.gateways[0].start()
        it.stream.from_notebook(execute("print 2"))
        await book.wait_for(book.done(2))
        assert any("cannot repeat what it lost" in text for text in book.text("stderr"))
        it.stream.proven(book.items[plain - 1].index)
        assert it.stream.record().position == 0
        book.prove()
        assert it.stream.record().position == it.kernel.log.index.head
