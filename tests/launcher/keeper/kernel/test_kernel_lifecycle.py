"""The kernel's life as data, its activity, its crash budget, its last reason."""

from __future__ import annotations

import signal

import pytest

from holdfast_launcher.keeper.kernel.lifecycle import (
    TRANSITIONS,
    Activity,
    CrashBudget,
    Event,
    State,
    advance,
    exit_reason,
)
from holdfast_launcher.keeper.kernel.readiness import Next, Readiness
from holdfast_protocol.errors import InvalidState


def test_every_state_is_reached_and_can_be_closed():
    reached, frontier = {State.NEW}, [State.NEW]
    while frontier:
        state = frontier.pop()
        for (source, _), target in TRANSITIONS.items():
            if source is state and target not in reached:
                reached.add(target)
                frontier.append(target)
    assert reached == set(State)
    assert all(advance(state, Event.SHUTDOWN) is State.CLOSED for state in State)
    assert [e for s, e in TRANSITIONS if s is State.CLOSED] == [Event.SHUTDOWN]


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.NEW, Event.RESTART),
        (State.RUNNING, Event.LAUNCH),
        (State.CLOSED, Event.RESTART),
        (State.DEAD, Event.READY),
    ],
)
def test_what_the_table_does_not_have_is_refused(state, event):
    with pytest.raises(InvalidState, match=state.value):
        advance(state, event)


def test_busy_is_busy_until_the_last_parent_is_idle():
    activity = Activity()
    assert activity.state == "idle"
    activity.observe("busy", "cell")
    activity.observe("busy", "control")
    activity.observe("idle", "control")
    assert activity.state == "busy"
    activity.observe("idle", "cell")
    assert activity.state == "idle"
    activity.observe("busy", "cell")
    activity.observe("idle", "")
    assert activity.state == "idle"
    activity.observe("busy", "its idle is lost")
    activity.doubt()
    activity.observe("busy", "cell")
    assert activity.state == "busy"
    activity.observe("idle", "cell")
    assert activity.state == "idle"
    activity.observe("busy", "one")
    activity.observe("busy", "two")
    activity.observe("idle", "one")
    assert activity.state == "busy"


def test_the_crash_budget_is_per_window():
    budget = CrashBudget(2, window=60)
    assert [budget.spend(now) for now in (0, 1, 2, 59)] == [True, True, False, False]
    assert budget.spend(60.5)  # the first is forgotten
    assert not budget.spend(60.6)
    assert not CrashBudget(0).spend(0)


def test_reasons_are_for_people():
    assert exit_reason(3) == "the kernel process exited with code 3"
    assert "SIGKILL (perhaps it ran out of memory)" in exit_reason(-signal.SIGKILL)
    assert exit_reason(-signal.SIGSEGV).endswith("killed by SIGSEGV")
    assert "signal 200" in exit_reason(-200)
    assert "status" in exit_reason(None)


def test_ready_needs_an_answer_and_iopub():
    readiness = Readiness()
    assert readiness.decide() is Next.WAIT
    readiness.iopub = True
    readiness.control = True
    assert readiness.decide() is Next.WAIT  # a new kernel must answer on shell
    readiness.shell = True
    assert readiness.decide() is Next.READY
    readiness.iopub = False
    assert readiness.decide() is Next.NUDGE
    assert Readiness(adopted=True, control=True, iopub=True).decide() is Next.READY
