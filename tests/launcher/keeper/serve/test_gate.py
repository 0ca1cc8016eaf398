"""No message of one incarnation reaches the next: every order of events against a model."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_launcher.keeper.serve.gate import Gate, GateState, Verdict
from holdfast_protocol.jupyter import Message


def message(number: int) -> Message:
    return Message.from_dicts(channel="shell", header={"msg_id": str(number)})


def test_held_messages_go_first_and_in_order() -> None:
    gate, got = Gate(100), []
    assert gate.submit("s", message(1), 10) is Verdict.HELD
    assert gate.submit("t", message(2), 10) is Verdict.HELD
    gate.open(lambda session, held: got.append((session, held.msg_id)))
    assert got == [("s", "1"), ("t", "2")]
    assert gate.submit("s", message(3), 10) is Verdict.GIVE
    assert gate.held_bytes == 0


def test_what_exceeds_the_bound_is_refused_not_dropped() -> None:
    gate = Gate(25)
    assert gate.submit("s", message(1), 20) is Verdict.HELD
    assert gate.submit("s", message(2), 6) is Verdict.REFUSE_FULL
    assert gate.submit("s", message(3), 5) is Verdict.HELD


def test_a_dead_kernel_refuses_until_it_is_started_again() -> None:
    gate = Gate(100)
    gate.submit("s", message(1), 1)
    assert [held.message.msg_id for held in gate.close(dead=True)] == ["1"]
    assert gate.submit("s", message(2), 1) is Verdict.REFUSE_DEAD
    gate.expect()
    assert gate.state is GateState.WAITING
    assert gate.submit("s", message(3), 1) is Verdict.HELD


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["send", "ready", "restarting", "dead", "expect"]), max_size=40))
def test_each_message_is_given_once_to_the_incarnation_of_its_time_or_refused(
    steps: list[str],
) -> None:
    gate = Gate(1 << 20)
    incarnation = number = 0
    accepted_in: dict[str, int] = {}
    given_to: dict[str, int] = {}
    refused: set[str] = set()

    def give(_: str, held: Message) -> None:
        assert held.msg_id not in given_to
        given_to[held.msg_id] = incarnation

    for step in steps:
        if step == "send":
            number += 1
            accepted_in[str(number)] = incarnation
            verdict = gate.submit("s", message(number), 1)
            if verdict is Verdict.GIVE:
                give("s", message(number))
            elif verdict is Verdict.REFUSE_DEAD:
                refused.add(str(number))
        elif step == "ready" and gate.state is GateState.WAITING:
            incarnation += 1
            gate.open(give)
        elif step in ("restarting", "dead") and gate.state is GateState.OPEN:
            refused |= {held.message.msg_id for held in gate.close(dead=step == "dead")}
        elif step == "dead" and gate.state is GateState.WAITING:
            refused |= {held.message.msg_id for held in gate.close(dead=True)}
        elif step == "expect":
            gate.expect()
    assert not refused & given_to.keys()
    assert list(given_to) == sorted(given_to, key=int), "in order"
    for msg_id, target in given_to.items():
        assert target in (accepted_in[msg_id], accepted_in[msg_id] + 1)
