"""What a stream's status says, when it is published, and when it is not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from holdfast_client_shim.stream import board
from holdfast_client_shim.stream.board import StatusBoard
from holdfast_client_shim.stream.status import (
    REFUSED_FOR,
    SILENT_FOR,
    UNNOTICED,
    Resumption,
    StatusTracker,
    StreamState,
    StreamStatus,
)
from holdfast_protocol.jupyter import V1_SUBPROTOCOL
from support.fake_stream_keeper import FakeGateway
from support.stream_scene import Scene, eventually, execute, scene

LOG = logging.getLogger("test")
URL = "http://a"


def live(now: float = 0.0) -> StatusTracker:
    tracker = StatusTracker(now)
    tracker.opened(now, URL)
    tracker.live(now)
    return tracker


def test_a_first_connection_is_no_break() -> None:
    tracker = StatusTracker(10.0)
    assert tracker.at(10.0) == StreamStatus(StreamState.RESUMING, 10.0, "connecting")
    tracker.opened(10.1, URL)
    tracker.live(10.2)
    assert tracker.at(11.0) == StreamStatus(StreamState.CONNECTED, 10.2, "", URL)


def test_a_break_is_told_once_with_what_it_cost() -> None:
    tracker = live()
    tracker.dialling(5.0)
    assert tracker.at(5.1).state is StreamState.RESUMING
    assert tracker.worth_telling_at() == 5.0 + UNNOTICED
    tracker.opened(5.3, URL)
    tracker.live(5.5)
    tracker.counted(recovered=14)
    tracker.counted(lost=2)
    status = tracker.at(6.0)
    assert status.resumed == Resumption(0.5, 14, 2)
    assert tracker.at(6.0).resumed == status.resumed, "until it was told"
    tracker.told()
    assert tracker.at(6.0).resumed is None


def test_breaks_that_nobody_was_told_of_are_told_as_one() -> None:
    tracker = live()
    for begin in (1.0, 2.0):
        tracker.dialling(begin)
        tracker.opened(begin + 0.25, URL)
        tracker.live(begin + 0.25)
        tracker.counted(recovered=3)
    assert tracker.at(3.0).resumed == Resumption(0.5, 6, 0)


def test_a_refused_connection_is_said_in_words() -> None:
    tracker = live()
    tracker.dialling(1.0)
    tracker.no_answer(1.1, "[Errno 111] Connect call failed ('127.0.0.1', 8888)")
    assert tracker.at(1.2).reason == "no gateway answers: connection refused"


def test_silence_becomes_unreachable_by_itself() -> None:
    tracker = live()
    tracker.dialling(10.0)
    tracker.no_answer(10.2, "refused")
    assert tracker.next_change(10.2) == 10.0 + SILENT_FOR
    assert tracker.at(14.9).state is StreamState.RESUMING
    status = tracker.at(15.0)
    assert (status.state, status.since) == (StreamState.UNREACHABLE, 15.0)
    assert status.reason == "no gateway answers: refused"
    tracker.opened(20.0, URL)
    tracker.live(20.0)
    assert tracker.at(20.0).resumed == Resumption(10.0)


def test_a_gateways_word_counts_when_it_is_repeated_for_a_while() -> None:
    """One that takes over from another says 503 in passing; a refused token does not pass."""
    tracker = live()
    tracker.dialling(10.0)
    tracker.refused(10.0, "the node is cut off", final=False)
    assert tracker.at(10.5).state is StreamState.RESUMING
    assert tracker.at(10.0 + REFUSED_FOR).state is StreamState.UNREACHABLE
    assert tracker.at(10.0 + REFUSED_FOR).reason == "the node is cut off"
    tracker.no_answer(12.0, "refused")
    assert tracker.at(13.0).state is StreamState.RESUMING, "silence has just begun"
    tracker.refused(14.0, "wrong token", final=True)
    assert tracker.at(14.0).state is StreamState.UNREACHABLE


def test_waiting_has_the_gateways_reason() -> None:
    tracker = StatusTracker(0.0)
    tracker.opened(0.1, URL)
    assert tracker.at(0.1).state is StreamState.WAITING
    tracker.explained(0.4, "queued behind 3 others", reachable=True)
    assert tracker.at(0.5).reason == "queued behind 3 others"
    tracker.explained(2.0, "node 7 is cut off", reachable=False)
    assert tracker.at(2.0) == StreamStatus(StreamState.UNREACHABLE, 2.0, "node 7 is cut off", URL)
    tracker.explained(3.0, "starting", reachable=True)
    assert tracker.at(3.0).state is StreamState.WAITING
    tracker.live(4.0)
    assert tracker.at(4.0).resumed is None, "it was never live before"


def test_a_rest_is_no_break() -> None:
    tracker = live()
    tracker.rested()
    tracker.dialling(100.0)
    tracker.opened(100.1, URL)
    tracker.live(100.2)
    assert tracker.at(101.0).resumed is None


def test_a_gateway_that_cannot_replay_claims_nothing() -> None:
    tracker = StatusTracker(0.0)
    tracker.opened(0.0, URL)
    tracker.live(0.0, note="cannot repeat", can_replay=False)
    assert tracker.at(0.0).reason == "", "nothing is missing yet"
    tracker.dialling(1.0)
    tracker.opened(1.1, URL)
    tracker.live(1.1, note="cannot repeat", can_replay=False)
    assert (tracker.at(2.0).reason, tracker.at(2.0).resumed) == ("cannot repeat", None)


def test_gone_is_the_last_word() -> None:
    tracker = live()
    tracker.gone(3.0, "killed by the system: out of memory")
    tracker.no_answer(4.0, "refused")
    assert tracker.at(20.0).state is StreamState.GONE


async def test_a_board_sends_the_last_of_many_changes_and_spares_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(board, "APART", 0.05)
    sent: list[dict[str, Any]] = []
    it = StatusBoard(sent.append, LOG)
    now = asyncio.get_running_loop().time()
    for number in range(100):
        status = StreamStatus(StreamState.CONNECTED, now, f"{number}")
        it.changed(("k", "s"), lambda status=status: status)  # type: ignore[misc] # its own one
    await eventually(lambda: bool(sent))
    assert [status["reason"] for status in sent] == ["99"]
    streams = 20
    began = asyncio.get_running_loop().time()
    for number in range(streams):
        it.changed((f"k{number}", "s"), lambda: StreamStatus(StreamState.CONNECTED, now))
    await eventually(lambda: len(sent) == 1 + streams)
    took = asyncio.get_running_loop().time() - began
    assert took >= (streams - 1) / board.PER_SECOND * 0.9, "spread, not in one go"


async def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(status: dict[str, Any]) -> None:
        raise RuntimeError("a listener's bug")

    it = StatusBoard(fail, LOG)
    for key in ("a", "b"):
        it.changed((key, "s"), lambda: StreamStatus(StreamState.GONE, 0.0))
    it.close()
    assert caplog.text.count("could not be published") == 1


def states(it: Scene) -> list[str]:
    return [status["state"] for status in it.statuses]


def of(state: str) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status["state"] == state


async def test_failover_is_one_event_with_its_figures() -> None:
    async with scene() as it:
        book = it.attach()
        it.stream.from_notebook(execute("print 20 0.005"))
        await it.wait_status(of("connected"))
        await book.wait_for(book.done())
        first = it.carrying()
        await it.kernel.wait_for(lambda: it.kernel.acknowledged == it.kernel.log.index.head)
        it.statuses.clear()
        # the other end of what the keeper logs while nobody reads it
        for gateway in it.gateways:
            if gateway is not first:
                gateway.freeze()
        await first.kill()
        for _ in range(14):
            it.kernel.publish("stream", {"name": "stdout", "text": "x\n"})
        for gateway in it.gateways:
            gateway.thaw()
        status = await it.wait_status(lambda s: s["resumed"] is not None)
        assert status["state"] == "connected"
        assert status["gateway"] == next(g.url for g in it.gateways if g is not first)
        assert status["resumed"]["recovered"] == 14
        assert status["resumed"]["lost"] == 0
        assert 0 < status["resumed"]["seconds"] < 5
        assert status["since"].endswith("Z")
        assert set(states(it)) <= {"resuming", "waiting", "connected"}
        assert (status["kernel_id"], status["session_id"]) == ("k1", "s1")


async def test_an_outage_goes_through_its_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast_client_shim.stream.status.SILENT_FOR", 0.8)
    async with scene(1) as it:
        it.attach()
        await it.wait_status(of("connected"))
        await it.gateways[0].kill()
        await it.wait_status(of("resuming"))
        lost = await it.wait_status(of("unreachable"))
        assert lost["reason"].startswith("no gateway answers")
        assert lost["gateway"] == ""
        await it.gateways[0].start()
        back = await it.wait_status(lambda s: s["resumed"] is not None)
        assert back["resumed"]["seconds"] >= 0.8
        assert states(it) == ["connected", "resuming", "unreachable", "connected"]


async def test_words_of_a_gateway_are_passed_on() -> None:
    async with scene(1) as it:
        it.gateways[0].answer = (503, {"Retry-After": "0"})
        it.attach()
        status = await it.wait_status(of("unreachable"))
        assert status["reason"] == "as told"
        it.gateways[0].answer = None
        await it.wait_status(of("connected"))


async def test_a_kernel_that_is_not_ready_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway takes the websocket and the keeper is not there, as behind a queue."""
    ready = asyncio.Event()
    run = FakeGateway.__dict__["_channels"]

    async def hold(self: FakeGateway, request: Any) -> Any:
        if ready.is_set():
            return await run(self, request)
        from aiohttp import web

        socket = web.WebSocketResponse(protocols=(self.subprotocol,))
        await socket.prepare(request)
        await ready.wait()
        await socket.close(code=1012, message=b"the kernel is ready")
        return socket

    monkeypatch.setattr(FakeGateway, "_channels", hold)
    async with scene(1) as it:
        it.explanation = ("queued behind 3 others", True)
        book = it.attach()
        it.stream.from_notebook(execute("print 2"))
        status = await it.wait_status(lambda s: s["reason"] == "queued behind 3 others")
        assert status["state"] == "waiting"
        assert status["gateway"] == it.gateways[0].url
        ready.set()
        await book.wait_for(book.done())
        connected = await it.wait_status(of("connected"))
        assert connected["resumed"] is None


async def test_a_dead_kernels_status_is_gone_with_the_reason() -> None:
    async with scene(1) as it:
        it.attach()
        await it.wait_status(of("connected"))
        it.stream.over("it was killed for its memory", failed=False)
        it.board.close()
        assert it.statuses[-1]["state"] == "gone"
        assert it.statuses[-1]["reason"] == "it was killed for its memory"


async def test_a_plain_gateways_break_has_no_figures() -> None:
    async with scene(1, subprotocol=V1_SUBPROTOCOL) as it:
        it.attach()
        await it.wait_status(of("connected"))
        it.gateways[0].abort_all()
        status = await it.wait_status(lambda s: "cannot repeat" in s["reason"])
        assert (status["state"], status["resumed"]) == ("connected", None)
