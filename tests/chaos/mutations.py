"""Ways in which a clean history can be made to tell of a broken promise, one each.

Each takes the events and a source of choices, and answers other events; ``rule`` is what the
checker must call it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from support.chaos.history import (
    Acted,
    Answered,
    Called,
    Ended,
    Event,
    Fenced,
    Found,
    Listed,
    Opened,
    Ran,
    Received,
    Sampled,
    Sent,
    Stuck,
)

_E = TypeVar("_E", bound=Event)
Change = Callable[[list[Event], random.Random], list[Event]]


@dataclass(frozen=True)
class Mutation:
    """``rule``: the word of the violation that it must make."""

    name: str
    rule: str
    change: Change

    def __repr__(self) -> str:
        return self.name


def _all(events: list[Event], kind: type[_E]) -> list[_E]:
    return [event for event in events if isinstance(event, kind)]


def _client_of(events: list[Event], session: str) -> str:
    return next(e.client for e in _all(events, Opened) if e.session == session)


def _without(events: list[Event], *gone: Event) -> list[Event]:
    return [event for event in events if not any(event is one for one in gone)]


def _after(events: list[Event], event: Event, *more: Event) -> list[Event]:
    at = next(n for n, one in enumerate(events) if one is event) + 1
    return [*events[:at], *more, *events[at:]]


def _put(events: list[Event], old: Event, new: Event) -> list[Event]:
    return [new if event is old else event for event in events]


def _messages(events: list[Event], kind: str, client: str = "") -> list[Received]:
    return [
        event
        for event in _all(events, Received)
        if event.kind == kind and (not client or _client_of(events, event.session) == client)
    ]


def silent_loss(events: list[Event], draw: random.Random) -> list[Event]:
    lost = draw.choice(_messages(events, "stream"))
    return _without(events, *(e for e in _all(events, Received) if e.msg_id == lost.msg_id))


def lost_reply(events: list[Event], draw: random.Random) -> list[Event]:
    lost = draw.choice(_messages(events, "execute_reply"))
    return _without(events, *(e for e in _all(events, Received) if e.msg_id == lost.msg_id))


def lost_idle(events: list[Event], draw: random.Random) -> list[Event]:
    lost = draw.choice(_messages(events, "status"))
    return _without(events, *(e for e in _all(events, Received) if e.msg_id == lost.msg_id))


def second_reply(events: list[Event], draw: random.Random) -> list[Event]:
    reply = draw.choice(_messages(events, "execute_reply"))
    return _after(events, reply, replace(reply, msg_id="another"))


def double_execution(events: list[Event], draw: random.Random) -> list[Event]:
    run = draw.choice(_all(events, Ran))
    return _after(events, run, replace(run, at=run.at + 0.001))


def never_ran(events: list[Event], draw: random.Random) -> list[Event]:
    return _without(events, draw.choice(_all(events, Ran)))


def ran_unasked(events: list[Event], draw: random.Random) -> list[Event]:
    run = draw.choice(_all(events, Ran))
    return _after(events, run, replace(run, cell=run.cell + 1000))


def ran_elsewhere(events: list[Event], draw: random.Random) -> list[Event]:
    run = draw.choice(_all(events, Ran))
    return _put(events, run, replace(run, kernel="kernel-99"))


def wrong_order(events: list[Event], draw: random.Random) -> list[Event]:
    runs = _all(events, Ran)
    late = draw.choice([run for run in runs if run.cell > 1])
    early = next(r for r in runs if r.session == late.session and r.cell == late.cell - 1)
    swapped = _put(events, late, replace(early, at=late.at, pid=late.pid))
    return _put(swapped, early, replace(late, at=early.at, pid=early.pid))


def lines_swapped(events: list[Event], draw: random.Random) -> list[Event]:
    """Two lines of one cell in the other order."""
    streams = _messages(events, "stream", "shim")
    pairs = [(a, b) for a, b in pairwise(streams) if a.parent == b.parent]
    first, second = draw.choice(pairs)
    swapped = _put(events, first, replace(first, text=second.text))
    return _put(swapped, second, replace(second, text=first.text))


def repeated_by_shim(events: list[Event], draw: random.Random) -> list[Event]:
    message = draw.choice(_messages(events, "stream", "shim"))
    return _after(events, message, message)


def repeated_without_reconnect(events: list[Event], draw: random.Random) -> list[Event]:
    """A plain client's message again after a newer one, on the same connection."""
    message = draw.choice(_messages(events, "stream", "plain"))
    newer = next(
        e
        for e in _all(events, Received)
        if e.session == message.session and e.at > message.at and e.msg_id != message.msg_id
    )
    return _after(events, newer, replace(message, at=newer.at))


def unexplained_gap(events: list[Event], draw: random.Random) -> list[Event]:
    lost = draw.choice(_messages(events, "stream"))
    said = replace(lost, stream="stderr", text="holdfast: 1 messages lost: log full\n")
    return [
        said if isinstance(event, Received) and event.msg_id == lost.msg_id else event
        for event in events
    ]


def unexplained_error(events: list[Event], draw: random.Random) -> list[Event]:
    reply = draw.choice(_messages(events, "execute_reply"))
    return _put(events, reply, replace(reply, status="error", ename="HoldfastError"))


def waited_for_ever(events: list[Event], draw: random.Random) -> list[Event]:
    reply = draw.choice(_messages(events, "execute_reply", "shim"))
    sent = next(e for e in _all(events, Sent) if e.msg_id == reply.parent)
    stuck = Stuck(at=reply.at, session=sent.session, cell=sent.cell, seconds=90)
    return _after(_put(events, reply, stuck), stuck)


def stale_token(events: list[Event], draw: random.Random) -> list[Event]:
    """An effect under a token that was overtaken: another owner's was acknowledged before."""
    act = draw.choice([e for e in _all(events, Acted) if e.where.startswith("keeper")])
    newer = Fenced(
        at=act.at - 0.0001,
        where=act.where,
        kernel=act.kernel,
        token=(act.token[0], act.token[1] + 9),
    )
    return [*_without(events, act), newer, act]


def double_restart(events: list[Event], draw: random.Random) -> list[Event]:
    act = draw.choice([e for e in _all(events, Acted) if e.where.startswith("keeper")])
    asked = [e for e in _all(events, Called) if e.action == "restart" and e.kernel == act.kernel]
    more = [replace(act, call="restart", at=act.at + 1) for _ in range(len(asked) + 1)]
    return _after(events, act, *more)


def kernel_replaced(events: list[Event], draw: random.Random) -> list[Event]:
    """Its process is another one, oftener than anybody asked for."""
    kernel = draw.choice(_all(events, Ran)).kernel
    runs = [run for run in _all(events, Ran) if run.kernel == kernel]
    for n, run in enumerate(runs):
        events = _put(events, run, replace(run, pid=9000 + n))
    return [
        event
        for event in events
        if not (isinstance(event, Called) and event.action == "restart")
        and not (isinstance(event, Acted) and event.call == "restart")
    ]


def partial_list(events: list[Event], draw: random.Random) -> list[Event]:
    full = draw.choice([e for e in _all(events, Answered) if e.status == 200 and e.kernels])
    return _put(events, full, replace(full, kernels=full.kernels[1:]))


def _extra_call(events: list[Event], action: str, status: int) -> list[Event]:
    kernel = next(e for e in _all(events, Answered) if e.status == 201).kernels[0]
    before = _all(events, Listed)[0]
    at = before.at - 0.0001
    called = Called(at=at, call=9999, client="plain", action=action, kernel=kernel)
    return _after(events, before, called, Answered(at=at, call=9999, status=status))


def false_404(events: list[Event], draw: random.Random) -> list[Event]:
    return _extra_call(events, draw.choice(["get", "open"]), 404)


def deadly_error(events: list[Event], draw: random.Random) -> list[Event]:
    return _extra_call(events, "get", draw.choice([500, 502, 504]))


def orphan(events: list[Event], draw: random.Random) -> list[Event]:
    found = draw.choice(_all(events, Found))
    return _after(events, found, replace(found, pid=7777, kernel="kernel-88"))


def stray(events: list[Event], draw: random.Random) -> list[Event]:
    found = draw.choice(_all(events, Found))
    return _after(events, found, replace(found, pid=7777, kernel="", role="stray"))


def left_behind(events: list[Event], draw: random.Random) -> list[Event]:
    found = draw.choice(_all(events, Found))
    end = _all(events, Ended)[0]
    return [*_without(events, end), replace(found, at=end.at, phase="emptied"), end]


def record_without_kernel(events: list[Event], draw: random.Random) -> list[Event]:
    return _without(events, draw.choice([e for e in _all(events, Found) if e.role == "kernel"]))


def kernel_forgotten(events: list[Event], draw: random.Random) -> list[Event]:
    """No proxy has its record, and nothing runs: it is gone, and nobody asked for that."""
    kernel = draw.choice(_all(events, Found)).kernel
    events = _without(events, *(e for e in _all(events, Found) if e.kernel == kernel))
    for listed in _all(events, Listed):
        kept = tuple(one for one in listed.kernels if one != kernel)
        events = _put(events, listed, replace(listed, kernels=kept))
    return events


def disagreement(events: list[Event], draw: random.Random) -> list[Event]:
    listed = draw.choice([e for e in _all(events, Listed) if e.phase == "quiet"])
    return _put(events, listed, replace(listed, kernels=(*listed.kernels, "kernel-77")))


def leak(events: list[Event], draw: random.Random) -> list[Event]:
    sample = draw.choice([e for e in _all(events, Sampled) if e.when == "after"])
    return _put(events, sample, replace(sample, fds=sample.fds + 40))


def growth(events: list[Event], draw: random.Random) -> list[Event]:
    pid = draw.choice(_all(events, Sampled)).pid
    mine = [e for e in _all(events, Sampled) if e.pid == pid and e.when == "during"]
    for n, sample in enumerate(mine):
        events = _put(events, sample, replace(sample, rss=sample.rss * (1 + n / 20)))
    return events


def cut_off(events: list[Event], draw: random.Random) -> list[Event]:
    """The recorder died: the end is missing."""
    end = _all(events, Ended)[0]
    return _without(events, end)


MUTATIONS = (
    Mutation("silent-loss", "complete", silent_loss),
    Mutation("lost-reply", "answered", lost_reply),
    Mutation("lost-idle", "answered", lost_idle),
    Mutation("second-reply", "answered", second_reply),
    Mutation("double-execution", "once", double_execution),
    Mutation("never-ran", "once", never_ran),
    Mutation("ran-unasked", "once", ran_unasked),
    Mutation("ran-elsewhere", "once", ran_elsewhere),
    Mutation("wrong-order", "order", wrong_order),
    Mutation("lines-swapped", "complete", lines_swapped),
    Mutation("repeated-by-shim", "repeated", repeated_by_shim),
    Mutation("repeated-without-reconnect", "repeated", repeated_without_reconnect),
    Mutation("unexplained-gap", "complete", unexplained_gap),
    Mutation("unexplained-error", "answered", unexplained_error),
    Mutation("waited-for-ever", "answered", waited_for_ever),
    Mutation("stale-token", "token", stale_token),
    Mutation("double-restart", "once", double_restart),
    Mutation("kernel-replaced", "alive", kernel_replaced),
    Mutation("partial-list", "answers", partial_list),
    Mutation("false-404", "answers", false_404),
    Mutation("deadly-error", "answers", deadly_error),
    Mutation("orphan", "orphan", orphan),
    Mutation("stray", "orphan", stray),
    Mutation("left-behind", "orphan", left_behind),
    Mutation("record-without-kernel", "record", record_without_kernel),
    Mutation("kernel-forgotten", "alive", kernel_forgotten),
    Mutation("disagreement", "record", disagreement),
    Mutation("leak", "leak", leak),
    Mutation("growth", "memory", growth),
    Mutation("cut-off", "history", cut_off),
)
