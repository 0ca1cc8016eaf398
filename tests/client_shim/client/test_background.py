"""The thread that talks to gateways: results, cancellation, and what a fork does to it."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading

import pytest

from holdfast_client_shim.client import background as background_module
from holdfast_client_shim.client.background import Background, background
from holdfast_client_shim.client.inbox import Inbox

LOOPS: list[asyncio.AbstractEventLoop] = []


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_one_for_the_process_whatever_loop_asks() -> None:
    assert background() is background()
    for value in range(3):
        assert asyncio.run(background().run(answer(value))) == value
    assert background().call(lambda: threading.current_thread().name) == "holdfast gateways"


async def test_an_error_comes_back() -> None:
    async def fail() -> None:
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        await background().run(fail())


async def test_a_cancellation_goes_over() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            cancelled.set()

    running = asyncio.ensure_future(background().run(work()))
    assert await asyncio.to_thread(begun.wait, 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(cancelled.wait, 30)


def _in_child(parent: int) -> None:
    """Use the loop that the parent made, as jupyter_core does, beside a sibling that does so."""
    assert id(background()) != parent
    (loop,) = LOOPS
    inbox = Inbox()
    for value in range(50):
        assert loop.run_until_complete(background().run(answer(value))) == value
        writer = threading.Thread(target=inbox.put, args=([("shell", b"%d" % value)],))
        reading = loop.create_task(inbox.get("shell"))
        loop.call_soon(writer.start)
        assert loop.run_until_complete(reading) == b"%d" % value
        writer.join()


def test_forked_children_that_share_a_loop() -> None:
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(background().run(answer(1))) == 1
    LOOPS[:] = [loop]
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_in_child, args=(id(background()),)) for _ in range(2)]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
        LOOPS.clear()
        loop.close()


@pytest.mark.timeout(60)
def test_a_wake_up_that_a_sibling_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to forked children now and then: the loop is not woken, it has to look.

    No timer of the test's own runs in the loop: it would wake it.
    """
    monkeypatch.setattr(background_module, "_forked", True)
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(loop, "_write_to_self", lambda: None)
    inbox = Inbox()
    release = threading.Event()

    async def held() -> int:
        await asyncio.to_thread(release.wait, 30)
        return 7

    async def use() -> tuple[int, bytes]:
        waiting = asyncio.ensure_future(background().run(held()))
        reading = asyncio.ensure_future(inbox.get("shell"))
        await asyncio.sleep(0)
        release.set()
        writer = threading.Thread(target=inbox.put, args=([("shell", b"1")],))
        writer.start()
        return await waiting, await reading

    assert loop.run_until_complete(use()) == (7, b"1")
    loop.close()


def test_its_repr() -> None:
    own = Background()
    assert repr(own) == "<Background running>"
    own.soon(own.loop.stop)
