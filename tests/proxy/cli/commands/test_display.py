"""Times, ids, text and tables, as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from holdfast_proxy.cli.display import ids, times
from holdfast_proxy.cli.display.table import Column, chosen, table
from holdfast_proxy.cli.display.text import plain, safe, size

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("stamp", "told"),
    [
        ("2026-01-02T11:59:59.500000Z", "now"),
        ("2026-01-02T11:59:58Z", "2 s ago"),
        ("2026-01-02T11:59:55.600000Z", "4.4 s ago"),
        ("2026-01-02T11:59:00Z", "60 s ago"),
        ("2026-01-02T11:30:00Z", "30 min ago"),
        ("2026-01-02T02:00:00Z", "10 h ago"),
        ("2025-12-30T12:00:00Z", "3 d ago"),
        ("2026-01-02T12:00:30Z", "now"),  # a clock that is ahead
        (None, "-"),
        ("yesterday", "-"),
    ],
)
def test_how_long_ago(stamp: str | None, told: str) -> None:
    assert times.ago(stamp, NOW) == told


def test_the_local_time_with_a_date_when_it_is_not_todays() -> None:
    assert times.clock("2026-01-02T11:00:00Z", NOW, EAST) == "13:00:00"
    assert times.clock("2026-01-01T11:00:00Z", NOW, EAST) == "2026-01-01 13:00:00"
    assert times.both("2026-01-02T11:59:48", NOW, EAST) == "12 s ago (13:59:48)"
    assert times.both(None, NOW, EAST) == times.clock("?", NOW, EAST) == "-"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("90s", 90), ("2h30m", 9000), ("1d", 86_400), ("1.5h", 5400), ("13:30", 1800)],
)
def test_since(text: str, seconds: int) -> None:
    assert times.since(text, NOW, EAST) == NOW - timedelta(seconds=seconds)


def test_since_a_time_of_day_that_is_still_to_come_is_yesterdays() -> None:
    assert times.since("14:30", NOW, EAST) == NOW - timedelta(hours=23, minutes=30)
    assert times.since("2026-01-01T00:00:00Z", NOW) == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "soon", "10", "m", "25:00", "10x"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (its text is the command's to say)
        times.since(text, NOW)


def test_ids_are_shortened_so_that_each_is_one() -> None:
    names = ["aaaaaaaa-1111", "aaaaaaaa-2222", "bbbbbbbb-1111"]
    assert ids.shorten(names) == {
        "aaaaaaaa-1111": "aaaaaaaa-1",
        "aaaaaaaa-2222": "aaaaaaaa-2",
        "bbbbbbbb-1111": "bbbbbbbb",
    }
    assert ids.shorten([]) == {}
    assert ids.shorten(["p1"]) == {"p1": "p1"}


@settings(max_examples=50)
@given(st.sets(st.text("ab-", min_size=1, max_size=14).filter(lambda t: t.strip("-") == t)))
def test_a_short_id_is_found_again(names: set[str]) -> None:
    for name, short in ids.shorten(names, at_least=1).items():
        assert ids.find(short, names) == name


def test_the_beginning_of_an_id() -> None:
    known = ["abc", "abd", "x", "xy"]
    assert ids.find("ABC", known) == "abc"
    assert ids.find("x", known) == "x", "a whole one is no beginning"
    with pytest.raises(ids.AmbiguousId) as several:
        ids.find("ab", known)
    assert several.value.candidates == ["abc", "abd"]
    for nothing in ("q", "", " "):
        with pytest.raises(ids.NoSuchId):
            ids.find(nothing, known)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\b", "ab"),
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("a\x9b2Jb", "ab"),
        ("a\x1bcb", "ab"),
        ("a\x00\x08\x7fb", "ab"),
        ("a\u202eb", "ab"),
        ("a\n  b\tc", "a b c"),
    ],
)
def test_nothing_that_a_terminal_obeys(text: str, shown: str) -> None:
    assert plain(text) == shown


@settings(max_examples=50)
@given(st.text("\x1b[]0;mJ\x07\\a\n\r\x9b"))
def test_no_escape_is_left(text: str) -> None:
    assert not set(safe(text)) & {"\x1b", "\x9b", "\x07", "\r"}


def test_colours_stay_where_they_may() -> None:
    text = "\x1b[31mred\x1b[0m\x1b[2J\x1b]0;x\x07!"
    assert safe(text, colours=True) == "\x1b[31mred\x1b[0m!"
    assert safe("10%\r20%\r30%\nend\r\n") == "30%\nend\n", "as on a terminal"


@pytest.mark.parametrize(
    ("count", "told"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (2048, "2 kB"), (10**8, "100 MB"), (2**30, "1.1 GB")],
)
def test_sizes(count: int | None, told: str) -> None:
    assert size(count) == told


COLUMNS = (
    Column("id", "id"),
    Column("status", "status"),
    Column("version", "version", rank=2),
    Column("url", "address", rank=1, least=10),
)
ROWS = [
    {"id": "proxy-1", "status": "ready", "version": "0.1.0", "url": "http://proxy-1.example:8888"}
]


def drawn(width: int, columns: tuple[Column, ...] = COLUMNS) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(table(columns, ROWS, width=width))
    return captured.get()


@pytest.mark.parametrize(
    ("width", "keys"),
    [
        (80, ["id", "status", "version", "url"]),
        (40, ["id", "status", "version", "url"]),  # the address is cut
        (30, ["id", "status", "url"]),
        (20, ["id", "status"]),
        (5, ["id", "status"]),
    ],
)
def test_columns_that_matter_less_go_first(width: int, keys: list[str]) -> None:
    assert [column.key for column in chosen(COLUMNS, ROWS, width)] == keys


def test_a_table_fits_and_cuts_only_what_may_be_cut() -> None:
    assert "http://proxy-1.example:8888" in drawn(80)
    narrow = drawn(40)
    assert all(len(line) <= 40 for line in narrow.splitlines())
    assert "proxy-1" in narrow
    assert "http://pro" in narrow
    assert "…" in narrow


def test_what_may_not_be_cut_goes_on_in_the_next_line() -> None:
    wrapping = (*COLUMNS[:2], Column("url", "address", rank=1, least=10, wraps=True))
    text = "".join(line[17:].strip() for line in drawn(34, wrapping).splitlines()[1:])
    assert text == "http://proxy-1.example:8888"


def test_a_column_without_content_is_left_out() -> None:
    rows = [{"id": "a", "status": "ready", "version": "-", "url": ""}]
    assert [column.key for column in chosen(COLUMNS, rows, 80)] == ["id", "status"]
