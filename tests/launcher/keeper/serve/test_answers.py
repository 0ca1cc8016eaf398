"""One request id takes effect once, whoever waits, leaves or comes late."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_launcher.keeper.serve.answers import Answer, Answers


class Counter:
    def __init__(self) -> None:
        self.runs = 0
        self.go = asyncio.Event()

    async def run(self) -> Answer:
        self.runs += 1
        await self.go.wait()
        return Answer(200, {"run": self.runs})


async def test_duplicates_wait_for_the_one_and_get_its_answer() -> None:
    answers, counter = Answers(), Counter()
    calls = [asyncio.ensure_future(answers.once("restart", "r1", counter.run)) for _ in range(3)]
    await asyncio.sleep(0)
    counter.go.set()
    assert await asyncio.gather(*calls) == [Answer(200, {"run": 1})] * 3
    assert await answers.once("restart", "r1", counter.run) == Answer(200, {"run": 1})
    assert counter.runs == 1


async def test_a_caller_that_leaves_cancels_nothing() -> None:
    answers, counter = Answers(), Counter()
    first = asyncio.ensure_future(answers.once("restart", "r1", counter.run))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    counter.go.set()
    assert await answers.once("restart", "r1", counter.run) == Answer(200, {"run": 1})


async def test_another_operation_or_no_id_runs_again() -> None:
    answers, counter = Answers(), Counter()
    counter.go.set()
    await answers.once("restart", "r1", counter.run)
    await answers.once("shutdown", "r1", counter.run)
    await answers.once("restart", None, counter.run)
    await answers.once("restart", None, counter.run)
    assert counter.runs == 4


async def test_only_finished_answers_are_forgotten() -> None:
    answers, waiting, done = Answers(limit=2), Counter(), Counter()
    done.go.set()
    held = asyncio.ensure_future(answers.once("restart", "held", waiting.run))
    await asyncio.sleep(0)
    for number in range(5):
        await answers.once("restart", str(number), done.run)
    again = asyncio.ensure_future(answers.once("restart", "held", waiting.run))
    await asyncio.sleep(0)
    waiting.go.set()
    assert await held == await again
    assert waiting.runs == 1
    await answers.once("restart", "0", done.run)
    assert done.runs == 6, "the oldest finished one was forgotten"


async def test_what_took_no_effect_may_be_tried_again_under_its_id() -> None:
    answers = Answers()
    outcomes = [Answer(503, {}), Answer(200, {})]

    async def run() -> Answer:
        return outcomes.pop(0)

    assert (await answers.once("interrupt", "r1", run)).status == 503
    assert (await answers.once("interrupt", "r1", run)).status == 200
