"""A program's side of a stream: what is proven when, and what a stream's end leaves to be read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast_client_shim.client import leg as leg_module
from holdfast_client_shim.client.background import Background
from holdfast_client_shim.client.inbox import Ended
from holdfast_client_shim.client.leg import ProgramLeg
from holdfast_client_shim.stream.outbox import Item
from holdfast_protocol.jupyter import Message, encode_v1
from support.processes import wait_until


class Stream:
    """What a leg asks of a KernelStream."""

    def __init__(self) -> None:
        self.proofs: list[int] = []
        self.attached: ProgramLeg | None = None

    def attach(self, leg: ProgramLeg) -> None:
        self.attached = leg

    def detach(self, leg: ProgramLeg) -> None:
        self.attached = None

    def proven(self, index: int) -> None:
        self.proofs.append(index)


class Scene:
    def __init__(self) -> None:
        self.background = Background()
        self.stream = Stream()
        self.leg = ProgramLeg(self.background)
        attach: Any = self.leg.attach
        self.background.call(attach, self.stream)
        self._index = 0

    def write(self, *messages: bytes) -> int:
        """Give messages as the stream does; the index of the last one."""
        items = []
        for message in messages:
            self._index += 1
            items.append(Item(self._index, self._index, message))
        assert self.background.call(self.leg.write, items)
        return self._index

    def wait_proven(self, index: int) -> None:
        wait_until(lambda: index in self.stream.proofs, seconds=10, what=f"proof of {index}")

    def settle(self) -> None:
        """Let the background do what it has been told."""
        self.background.call(lambda: None)
        self.background.call(lambda: None)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(leg_module, "UNREAD_BYTES", 1000)
    scene = Scene()
    yield scene
    scene.background.soon(scene.background.loop.stop)


def output(text: str) -> bytes:
    header = {"msg_id": "1", "msg_type": "stream"}
    content = {"name": "stdout", "text": text}
    return encode_v1(Message.from_dicts(channel="iopub", header=header, content=content))


def reply(ename: str) -> bytes:
    header = {"msg_id": "1", "msg_type": "execute_reply"}
    content = {"status": "error", "ename": ename, "evalue": "because", "traceback": []}
    return encode_v1(Message.from_dicts(channel="shell", header=header, content=content))


async def test_what_a_program_keeps_up_with_is_proven_at_once(scene: Scene) -> None:
    last = await asyncio.to_thread(scene.write, output("a"), output("b"))
    await asyncio.to_thread(scene.wait_proven, last)
    assert b'"a"' in await scene.leg.inbox.get("iopub", 10)
    assert b'"b"' in await scene.leg.inbox.get("iopub", 10)


async def test_what_it_does_not_take_is_proven_when_it_has(scene: Scene) -> None:
    last = await asyncio.to_thread(scene.write, *(output("x" * 400) for _ in range(5)))
    await asyncio.to_thread(scene.settle)
    assert scene.stream.proofs == []
    assert scene.leg.holding
    for _ in range(5):
        await scene.leg.inbox.get("iopub", 10)
    await asyncio.to_thread(scene.wait_proven, last)
    assert not scene.leg.holding


async def test_what_is_not_read_at_all_holds_no_reply_back(scene: Scene) -> None:
    waiting = asyncio.ensure_future(scene.leg.inbox.get("shell", 30))
    last = await asyncio.to_thread(scene.write, *(output("x" * 400) for _ in range(5)))
    await asyncio.to_thread(scene.wait_proven, last)  # though nothing was taken
    await asyncio.to_thread(scene.write, reply("ZeroDivisionError"))
    assert b"ZeroDivisionError" in await waiting


async def test_an_answer_that_says_that_the_kernel_died_is_heard_as_that(scene: Scene) -> None:
    await asyncio.to_thread(scene.write, reply("HoldfastKernelDied"), output("last words"))
    assert b"last words" in await scene.leg.inbox.get("iopub", 10)
    with pytest.raises(Ended, match="because"):
        await scene.leg.inbox.get("shell", 10)


async def test_the_streams_own_answers_give_way_to_its_end(scene: Scene) -> None:
    """A stream answers what is open, then closes, in one step."""

    def finish() -> None:
        scene.leg.write([Item(1, 0, reply("HoldfastError")), Item(2, 0, output("why"))])
        scene.leg.close(4410, "the kernel was shut down")

    await asyncio.to_thread(scene.background.call, finish)
    assert b"why" in await scene.leg.inbox.get("iopub", 10)
    with pytest.raises(Ended, match="the kernel was shut down"):
        await scene.leg.inbox.get("shell", 10)
    assert not scene.leg.open


async def test_its_answers_are_answers_while_it_lives(scene: Scene) -> None:
    await asyncio.to_thread(scene.write, reply("HoldfastError"))
    assert b"HoldfastError" in await scene.leg.inbox.get("shell", 10)


async def test_a_restart_that_was_asked_for_is_no_end(scene: Scene) -> None:
    scene.leg.restart_expected = True
    await asyncio.to_thread(scene.write, reply("HoldfastRestarted"))
    assert b"HoldfastRestarted" in await scene.leg.inbox.get("shell", 10)


async def test_leaving_twice(scene: Scene) -> None:
    for _ in range(2):
        await asyncio.to_thread(scene.background.call, scene.leg.detach)
    assert scene.stream.attached is None
    with pytest.raises(Ended, match="closed"):
        await scene.leg.inbox.get("shell", 10)
