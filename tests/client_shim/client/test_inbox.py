"""What waits for a program: order, waiting in any loop, and how the end of a kernel is heard."""

from __future__ import annotations

import asyncio
import threading
import time
from queue import Empty

import pytest

from holdfast_client_shim.client.inbox import IOPUB_PATIENCE, PATIENCE, Ended, Inbox


async def test_messages_come_in_order_of_their_channel() -> None:
    inbox = Inbox()
    inbox.put([("shell", b"1"), ("iopub", b"2"), ("shell", b"3")])
    assert await inbox.get("shell") == b"1"
    assert await inbox.get("shell") == b"3"
    assert await inbox.get("iopub") == b"2"
    assert inbox.unread == 0
    assert inbox.taken == 3


async def test_no_message_in_time() -> None:
    inbox = Inbox()
    with pytest.raises(Empty):
        await inbox.get("shell", 0)
    with pytest.raises(Empty):
        await inbox.get("shell", 0.01)
    inbox.put([("shell", b"1")])
    assert await inbox.get("shell", 0) == b"1"


def test_a_reader_in_one_loop_after_another() -> None:
    """As nbclient's, whose loop runs only while it waits for something."""
    inbox = Inbox()

    async def read() -> bytes:
        return await inbox.get("iopub", 30)

    for number in range(20):
        message = b"%d" % number
        writer = threading.Thread(target=inbox.put, args=([("iopub", message)],))
        writer.start()
        assert asyncio.run(read()) == message
        writer.join()


async def test_all_waiters_are_woken_and_one_gets_it() -> None:
    inbox = Inbox()
    readers = [asyncio.ensure_future(inbox.get("shell", 30)) for _ in range(3)]
    await asyncio.sleep(0)
    assert inbox.awaited
    inbox.put([("shell", b"1")])
    done, rest = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [b"1"]
    inbox.put([("shell", b"2"), ("shell", b"3")])
    assert {await task for task in rest} == {b"2", b"3"}
    assert not inbox.awaited


async def test_a_reader_that_is_cancelled_takes_nothing() -> None:
    inbox = Inbox()
    reader = asyncio.ensure_future(inbox.get("shell"))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    inbox.put([("shell", b"1")])
    assert await inbox.get("shell", 0) == b"1"


async def test_the_end_is_heard_when_iopub_was_read() -> None:
    inbox = Inbox()
    waiting = asyncio.ensure_future(inbox.get("shell"))
    await asyncio.sleep(0)
    inbox.put([("iopub", b"last words")])
    begun = time.monotonic()
    inbox.end("it died")
    inbox.end("and again")
    assert await inbox.get("iopub") == b"last words"
    with pytest.raises(Ended, match=r"^it died$"):
        await waiting
    assert time.monotonic() - begun < PATIENCE


async def test_the_end_is_heard_though_nobody_reads_iopub() -> None:
    inbox = Inbox()
    inbox.put([("iopub", b"unread"), ("shell", b"a reply that was in time")])
    begun = time.monotonic()
    inbox.end("it died")
    assert await inbox.get("shell") == b"a reply that was in time"
    with pytest.raises(Ended):
        await inbox.get("shell")
    assert time.monotonic() - begun >= PATIENCE
    assert not inbox.over


async def test_on_iopub_the_end_is_heard_last() -> None:
    inbox = Inbox()
    begun = time.monotonic()
    inbox.end("it died")
    with pytest.raises(Ended):
        await inbox.get("shell")
    with pytest.raises(Empty):
        await inbox.get("iopub", 0)
    with pytest.raises(Ended):
        await inbox.get("iopub")
    assert time.monotonic() - begun >= IOPUB_PATIENCE
    assert inbox.over


async def test_a_loop_that_is_closed_waits_for_nothing() -> None:
    inbox = Inbox()

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(inbox.get("shell"))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined] # it is abandoned on purpose

    thread = threading.Thread(target=abandon)
    thread.start()
    thread.join()
    inbox.put([("shell", b"1")])
    assert await inbox.get("shell", 0) == b"1"
