"""What the demo's verdict counts, and that each thing that goes wrong makes it fail."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from holdfast_proxy.cli.demo.command import exit_code
from holdfast_proxy.cli.demo.display import Column
from holdfast_proxy.cli.demo.session import Result
from holdfast_proxy.cli.demo.verdict import HORIZON, Kill, Spell, failovers, percentile
from support.demo_run import Run, line_text


@pytest.fixture
def run() -> Run:
    return Run()


def code(run: Run) -> int:
    """What the command exits with after this run."""
    return exit_code(Result([Column("Holdfast", "SIGKILL", run.verdict())]))


def test_an_undisturbed_count_is_good(run: Run) -> None:
    verdict = run.verdict()
    assert verdict.complaints == ()
    assert (verdict.cells, verdict.ran_once, verdict.expected, verdict.received) == (3, 3, 12, 12)
    assert (verdict.lost, verdict.doubled, verdict.misplaced) == (0, 0, 0)
    assert verdict.failovers == pytest.approx([0.1])
    assert code(run) == 0


def lose_a_line(run: Run) -> None:
    del run.streams[2][1]


def lose_the_last_line(run: Run) -> None:
    del run.streams[2][-1]


def double_a_line(run: Run) -> None:
    run.streams[2].insert(2, line_text(2, 2))


def double_a_line_much_later(run: Run) -> None:
    run.streams[2].append(line_text(2, 1))


def swap_lines(run: Run) -> None:
    run.streams[3][0], run.streams[3][1] = run.streams[3][1], run.streams[3][0]


def put_a_line_into_another_cell(run: Run) -> None:
    run.streams[3].append(line_text(2, 4))


def run_a_cell_twice(run: Run) -> None:
    run.runs[1] = 2


def do_not_run_a_cell(run: Run) -> None:
    run.runs[3] = 0


def lose_a_reply(run: Run) -> None:
    run.ends[2] = [("status", "idle")]


def lose_idle(run: Run) -> None:
    run.ends[3] = [("execute_reply", "ok")]


def double_a_reply(run: Run) -> None:
    run.ends[2].insert(0, ("execute_reply", "ok"))


def fail_a_cell(run: Run) -> None:
    run.ends[1] = [("execute_reply", "error"), ("status", "idle")]


def forget_a_step(run: Run) -> None:
    run.steps = 11


def kill_nobody(run: Run) -> None:
    run.kills = []


def break_off(run: Run) -> None:
    run.trouble = "POST /api/kernels was answered 500"


FAULTS: dict[Callable[[Run], None], str] = {
    lose_a_line: "1 line never came",
    lose_the_last_line: "1 line never came",
    double_a_line: "1 line came twice",
    double_a_line_much_later: "1 line came twice",
    swap_lines: "1 line came out of order or in another cell",
    put_a_line_into_another_cell: "1 line came out of order or in another cell",
    run_a_cell_twice: "cell 1 ran more than once",
    do_not_run_a_cell: "cell 3 did not run",
    lose_a_reply: "cell 2 never ended: no reply came",
    lose_idle: "cell 3 never ended: no reply came",
    double_a_reply: "cell 2 got more than one reply",
    fail_a_cell: "cell 1 ended with an error",
    forget_a_step: "the kernel remembers 11 steps, not 12",
    kill_nobody: "no proxy was killed, so nothing was shown",
    break_off: "POST /api/kernels was answered 500",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_named_and_exits_with_1(run: Run, fault: Callable[[Run], None]) -> None:
    fault(run)
    assert run.verdict().complaints == (FAULTS[fault],)
    assert code(run) == 1


def test_a_stopped_run_owes_only_what_precedes_its_last_line(run: Run) -> None:
    run.interrupted, run.steps, run.cut = True, None, {3}
    run.ends[3] = []
    del run.streams[3][2:]
    verdict = run.verdict()
    assert verdict.ok
    assert (verdict.expected, verdict.received) == (10, 10)
    assert (verdict.cells, verdict.unfinished) == (3, 1)
    del run.streams[3][0]
    assert run.verdict().complaints == ("1 line never came",)


def test_a_cell_that_was_cut_before_it_ran_is_no_fault(run: Run) -> None:
    run.interrupted, run.steps, run.cut = True, None, {3}
    run.ends[3], run.streams[3], run.runs = [], [], {1: 1, 2: 1}
    assert run.verdict().ok


def test_a_stopped_run_exits_with_130(run: Run) -> None:
    result = Result([Column("Holdfast", "SIGKILL", run.verdict())], interrupted=True)
    assert exit_code(result) == 130


def test_a_run_without_a_result_is_no_success() -> None:
    assert exit_code(Result()) == 1


def test_the_exit_code_is_about_holdfast_alone(run: Run) -> None:
    good, bad = run.verdict(), Run()
    lose_a_line(bad)
    both = [Column("Holdfast", "SIGKILL", good), Column("Kernel Gateway", "SIGKILL", bad.verdict())]
    assert exit_code(Result(both)) == 0
    assert exit_code(Result(both[::-1])) == 1


def test_a_failover_is_the_silence_around_the_kill() -> None:
    lines = (1.0, 1.1, 1.2, 1.9, 2.0, 2.1)
    assert failovers([Kill(1.21, "a")], [Spell(lines)]) == pytest.approx([0.7])


def test_a_line_under_way_at_the_kill_does_not_hide_the_silence() -> None:
    lines = (1.0, 1.1, 1.201, 1.9, 2.0)
    assert failovers([Kill(1.2, "a")], [Spell(lines)]) == pytest.approx([0.699])


def test_a_silence_that_began_later_belongs_to_nobody() -> None:
    steady = tuple(n / 10 for n in range(30))
    lines = (*steady, 9.0, 9.1)
    assert failovers([Kill(0.55, "a")], [Spell(lines)]) == pytest.approx([0.1])
    assert failovers([Kill(2.95 - HORIZON, "a")], [Spell(lines)])[0] > 6


def test_each_of_two_close_kills_has_its_own_silence() -> None:
    lines = (0.0, 0.5, 0.6, 0.7, 1.5, 1.6)
    first, second = failovers([Kill(0.1, "a"), Kill(0.65, "b")], [Spell(lines)])
    assert (first, second) == pytest.approx((0.5, 0.8))


def test_lines_that_end_with_their_kernel_are_no_failover() -> None:
    lost, fresh = Spell((1.0, 1.1, 1.11), lost=True), Spell((4.0, 4.1))
    assert failovers([Kill(1.105, "a")], [lost, fresh]) == (math.inf,)
    assert failovers([Kill(1.5, "a")], [lost, fresh]) == (math.inf,)


def test_survived_kills_are_counted_apart(run: Run) -> None:
    run.kills = [Kill(0.95, "proxy-1"), Kill(90.0, "proxy-2")]
    verdict = run.verdict()
    assert (verdict.kills, verdict.survived) == (2, 1)
    assert verdict.failover(0.5) == pytest.approx(0.1)
    run.kills = [Kill(90.0, "proxy-2")]
    assert run.verdict().failover(0.5) is None


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([3.0, 1.0], 0.5) == 1.0
