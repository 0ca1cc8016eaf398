"""What is a loss, and what only looks like one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast_launcher.keeper.kernel.counters import Counters

SERIES = "abc-def_4711"


def feed(counters: Counters, numbers, *, iopub: bool = True, series: str = SERIES) -> None:
    for number in numbers:
        counters.observe(f"{series}_{number}", iopub=iopub)


def ticks(counters: Counters, count: int = 4) -> int:
    return sum(counters.tick() for _ in range(count))


def test_a_dense_series_has_no_loss():
    counters = Counters()
    feed(counters, range(5, 500))
    assert ticks(counters) == 0


def test_skipped_numbers_are_lost_once_and_not_at_once():
    counters = Counters()
    feed(counters, range(100))
    feed(counters, range(130, 200))
    assert counters.tick() == 0  # it may still come by another socket
    assert ticks(counters) == 30
    assert ticks(counters) == 0
    feed(counters, range(200, 300))
    feed(counters, range(301, 400))
    assert ticks(counters) == 1


def test_a_reply_that_lags_behind_is_no_loss():
    counters = Counters()
    feed(counters, range(100))
    feed(counters, range(101, 150))
    assert counters.tick() == 0
    feed(counters, [100], iopub=False)
    assert ticks(counters) == 0


def test_replies_ahead_of_a_long_iopub_queue_are_no_loss():
    counters = Counters()
    feed(counters, range(50))
    feed(counters, [5000, 5001], iopub=False)
    assert ticks(counters, 50) == 0  # iopub may take as long as it likes
    feed(counters, range(50, 5000))
    feed(counters, range(5002, 5100))
    assert ticks(counters) == 0


def test_what_iopub_said_before_the_subscription_is_no_loss():
    counters = Counters()
    feed(counters, [3, 4], iopub=False)
    feed(counters, range(10, 60))
    feed(counters, [7], iopub=False)
    assert ticks(counters) == 0


def test_a_reply_that_came_before_the_first_of_iopub_is_remembered():
    counters = Counters()
    feed(counters, [2, 4], iopub=False)
    feed(counters, [1, 3, *range(5, 60)])
    feed(counters, range(70, 90))
    assert ticks(counters) == 10


def test_two_threads_that_raced_for_a_number_are_no_loss():
    counters = Counters()
    feed(counters, [*range(50), 49, *range(51, 100)])  # 49 twice, 50 never
    assert ticks(counters) == 0


def test_answers_to_a_closed_session_are_forgiven_once():
    counters = Counters()
    counters.forgive(2)
    feed(counters, range(50))
    feed(counters, range(52, 100))
    assert ticks(counters) == 0
    feed(counters, range(102, 200))
    assert ticks(counters) == 2


def test_ids_of_another_shape_are_not_counted():
    counters = Counters()
    for number in range(0, 900, 9):
        counters.observe(f"7b9c-{number}", iopub=True)
        counters.observe(f"name_{number}", iopub=True)
        counters.observe("", iopub=True)
    assert ticks(counters) == 0


def test_numbers_that_are_not_dense_prove_nothing():
    counters = Counters()
    feed(counters, range(0, 9000, 7))
    assert ticks(counters) == 0
    feed(counters, [10**12, 10**12 + 1])
    assert ticks(counters) == 0


def test_channels_numbered_each_for_itself_prove_nothing():
    counters = Counters()
    for number in range(100):
        feed(counters, [number])
        feed(counters, [number], iopub=False)
    feed(counters, range(110, 120))
    assert ticks(counters) == 0


def test_processes_count_apart():
    counters = Counters()
    feed(counters, range(100))
    feed(counters, range(40, 60), series="abc-def_4712")  # a forked child goes on from its copy
    assert ticks(counters) == 0


def test_the_end_settles_what_is_open():
    counters = Counters()
    feed(counters, range(100))
    feed(counters, range(103, 110))
    assert counters.finish() == 3


@given(
    st.sets(st.integers(20, 199), max_size=60),
    st.sets(st.integers(0, 199), max_size=60),
    st.lists(st.integers(0, 5), min_size=200, max_size=200),
)
def test_every_loss_is_counted_and_nothing_else(dropped, replied, delays):
    """Iopub keeps its order, replies come within a tick of it, some numbers never come."""
    dropped -= replied | {199}
    counters = Counters()
    late: list[int] = []
    lost = 0
    for number in range(200):
        if number in replied:
            (late.append(number) if delays[number] else feed(counters, [number], iopub=False))
        elif number not in dropped:
            feed(counters, [number])
        if number % 40 == 39:
            feed(counters, late, iopub=False)
            late.clear()
            lost += counters.tick()
    feed(counters, range(200, 230))
    lost += ticks(counters)
    first = min(n for n in range(230) if n not in replied and n not in dropped)
    expected = len([n for n in dropped if n > first])
    if lost != expected:  # a series that never showed twelve in a row is not proven dense
        runs = "".join("." if n in dropped else "x" for n in range(first, 230))
        assert lost < expected
        assert "x" * 13 not in runs.split(".")[0]
