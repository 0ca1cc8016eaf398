"""Which streams are kept for whom, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast_client_shim.stream import registry
from holdfast_client_shim.stream.kernel_stream import KernelStream
from holdfast_client_shim.stream.record import StreamRecord
from holdfast_client_shim.stream.registry import StreamRegistry
from support.stream_scene import LOG, Book, Scene, eventually, execute, scene


def registry_of(it: Scene, noted: Callable[[], None] = lambda: None) -> StreamRegistry:
    return StreamRegistry(it.client, LOG, board=it.board, noted=noted)


def enter(streams: StreamRegistry, session_id: str = "tab") -> tuple[KernelStream, Book]:
    stream = streams.enter("k1", session_id)
    book = Book(stream)
    stream.attach(book)
    return stream, book


async def test_a_notebook_that_comes_back_in_time_finds_its_stream() -> None:
    async with scene(1) as it:
        streams = registry_of(it)
        stream, book = enter(streams)
        stream.detach(book)
        streams.leave(stream, resumable=True)
        assert streams.enter("k1", "tab") is stream
        streams.close()
        assert len(streams) == 0


async def test_one_that_was_away_for_too_long_still_learns_of_another_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "KEEP_SECONDS", 0.01)
    async with scene(1) as it:
        streams = registry_of(it)
        stream, book = enter(streams)
        stream.from_notebook(execute("forever"))
        await it.kernel.wait_for(lambda: it.kernel.executed == ["forever"])
        stream.detach(book)
        await eventually(lambda: stream.idle)
        streams.leave(stream, resumable=True)
        await eventually(lambda: len(streams) == 0)
        (record,) = streams.records()
        assert (record.epoch, len(record.requests)) == (it.kernel.epoch, 1)
        it.kernel.begin_epoch()
        it.kernel.publish("stream", {"name": "stdout", "text": "meanwhile\n"})
        _, after = enter(streams)
        await after.wait_for(after.done())
        assert "meanwhile" in after.text()
        assert "was replaced" in after.text("stderr")[0]
        assert not any(status["resumed"] for status in it.statuses), "being away is no break"
        streams.close()


async def test_without_a_session_id_nothing_is_kept() -> None:
    async with scene(1) as it:
        streams = registry_of(it)
        stream, book = enter(streams)
        stream.detach(book)
        streams.leave(stream, resumable=False)
        assert (len(streams), streams.records()) == (0, [])


async def test_without_a_session_id_what_cannot_be_delivered_leaves_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would push out the record of one that does come back."""
    monkeypatch.setattr(registry, "KEEP_SECONDS", 0.01)
    async with scene(1) as it:
        await it.gateways[0].kill()
        streams = registry_of(it)
        stream, book = enter(streams)
        stream.from_notebook(execute("print 1"))
        stream.detach(book)
        streams.leave(stream, resumable=False)
        assert len(streams) == 1, "it tries for a while"
        await eventually(lambda: len(streams) == 0)
        assert streams.records() == []
        streams.close()


async def test_records_are_bounded_and_go_with_their_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "KEEP_RECORDS", 2)
    monkeypatch.setattr(registry, "KEEP_SECONDS", 0.0)
    async with scene(1) as it:
        notes: list[int] = []
        streams = registry_of(it, lambda: notes.append(1))
        streams.restore([StreamRecord("k0", "a"), StreamRecord("k1", "b")])
        for session_id in ("c", "d"):
            stream, book = enter(streams, session_id)
            stream.detach(book)
            streams.leave(stream, resumable=True)
            await eventually(lambda: len(streams) == 0)
        assert [record.session_id for record in streams.records()] == ["c", "d"]
        assert notes, "somebody writes it down"
        stream, book = enter(streams, "e")
        streams.kernel_gone("k1", "it ended")
        assert (streams.records(), len(streams)) == ([], 0)
        assert book.closed is not None
        assert book.closed[1] == "it ended"


async def test_two_tabs_are_two_streams() -> None:
    async with scene(1) as it:
        streams = registry_of(it)
        books = [enter(streams, session_id)[1] for session_id in ("a", "b")]
        books[0].stream.from_notebook(execute("print 2"))
        await books[0].wait_for(books[0].done())
        assert await streams.after("k1") == ["a:1"]
        assert {stream.session_id for stream in streams} == {"a", "b"}
        streams.close()
