"""What one entry of the log's index costs, and that a closed page costs the byte path nothing."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from holdfast_protocol.log import LogIndex

ENTRIES = 100_000
PAGES = 5_000


@dataclass(frozen=True, slots=True)
class Object:
    """An entry as an object of its own: what the index is measured against."""

    seq: int
    size: int
    audience: str | None


def grown(fill: Callable[[], object]) -> int:
    """Bytes that stay allocated after ``fill``."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = fill()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        del kept


def sizes() -> list[int]:
    return [400 + number % 300 for number in range(ENTRIES)]


def indexed() -> LogIndex:
    log = LogIndex()
    for number, size in enumerate(sizes()):
        log.append(size, "some-session" if number % 10 == 0 else None)
    return log


def objects() -> list[Object]:
    return [Object(1_000_000 + number, size, None) for number, size in enumerate(sizes())]


def test_an_entry_costs_a_fraction_of_an_object() -> None:
    index, plain = grown(indexed) / ENTRIES, grown(objects) / ENTRIES
    assert index < 20
    assert index / plain < 0.25


def test_names_are_kept_no_longer_than_their_entries() -> None:
    """A log that lives for months sees any number of sessions."""

    def fill() -> LogIndex:
        log = LogIndex()
        log.add_session("reader")
        for number in range(PAGES):
            log.append(10, f"page-{number}")
            log.acknowledge("reader", log.head)
            log.trim()
        log.check_invariants()
        return log

    assert grown(fill) < 10 * PAGES


def test_who_holds_the_log_back_is_not_looked_for_at_each_acknowledgement() -> None:
    """Ten thousand closed pages, one that reads on: their names are not gone through each time."""

    class Counted(str):
        __slots__ = ()
        compared = 0

        def __hash__(self) -> int:
            Counted.compared += 1
            return str.__hash__(self)

    log = LogIndex()
    for number in range(10_000):
        log.add_session(Counted(f"page-{number}"))
    log.add_session("reader")
    log.append(10)
    log.acknowledge("reader", 1)
    assert log.trim() is None
    Counted.compared = 0
    for _ in range(100):
        log.append(10)
        log.acknowledge("reader", log.head)
        assert log.trim() is None
    assert Counted.compared < 1_000
