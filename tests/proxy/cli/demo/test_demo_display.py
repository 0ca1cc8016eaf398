"""What `holdfast demo` draws and says, as a person and as a program gets it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from holdfast_proxy.cli.demo.display import (
    Column,
    MemberView,
    Scene,
    Screen,
    closing,
    picture,
    to_json,
    verdict_table,
)
from support.demo_run import Run, line_text

SCENE = Scene(
    title="Holdfast",
    elapsed=23.4,
    seconds=60.0,
    cell=5,
    cells=12,
    lines=2143,
    expected=6000,
    kills=4,
    last=0.0234,
    members=(
        MemberView("proxy-1", "ready", 4711, carries=True, kills=2),
        MemberView("proxy-2", "restarting", None, carries=False, kills=2),
    ),
)


def drawn(what: RenderableType, *, width: int = 80, **options: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, **options)  # type: ignore[arg-type]  # a test's shorthand
    console.print(what)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_picture_says_who_carries_and_fits(width: int) -> None:
    lines = drawn(picture(SCENE), width=width).splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= width
    assert "cell 5 of 12" in lines[0]
    assert "2,143 of 6,000 lines" in lines[0]
    assert "23 s of about 60" in lines[1]
    assert "proxy-1" in lines[2]
    assert "carries the notebook" in lines[2]
    assert "hit 2x" in lines[2]
    assert "restarting" in lines[3]
    assert lines[4].strip() == "kills: 4, the last one took 23 ms"


def test_the_picture_of_the_first_moment() -> None:
    start = replace(SCENE, elapsed=0.0, cell=0, lines=0, kills=0, last=None, members=())
    assert drawn(picture(start)).splitlines()[-1].strip() == "kills: 0"


def columns() -> list[Column]:
    bad = Run()
    del bad.streams[2][1:]
    bad.ends[2] = []
    bad.steps = 4
    return [
        Column("Holdfast", "SIGKILL", Run().verdict()),
        Column("Kernel Gateway 3.0.1", "SIGKILL", replace(bad.verdict(), failovers=(math.inf,))),
    ]


def row(table: str, label: str) -> list[str]:
    found = [line for line in table.splitlines() if line.strip().startswith(label)]
    assert len(found) == 1, table
    return found[0].replace(label, "", 1).split("  ")


@pytest.mark.parametrize("width", [80, 120])
def test_the_verdict_puts_both_side_by_side(width: int) -> None:
    table = drawn(verdict_table(columns()), width=width)
    assert max(map(len, table.splitlines())) <= width
    assert [cell.strip() for cell in row(table, "lines received") if cell.strip()] == ["12", "9"]
    assert [cell.strip() for cell in row(table, "lost") if cell.strip()] == ["0", "3"]
    assert [cell.strip() for cell in row(table, "the running cell went on") if cell.strip()] == [
        "1 of 1", "0 of 1",
    ]  # fmt: skip
    shown = [cell.strip() for cell in row(table, "after (p50 / p99 / max)") if cell.strip()]
    assert shown == ["100 / 100 / 100 ms", "never"]


def test_the_verdict_in_words() -> None:
    good, bad = columns()
    assert closing(good).plain == "Nothing was lost and nothing came twice."
    assert closing(bad).plain.splitlines() == [
        "Kernel Gateway 3.0.1 lost something:",
        "  - cell 2 never ended: no reply came",
        "  - 3 lines never came",
        "  - the kernel remembers 4 steps, not 12",
    ]
    stopped = Column("Holdfast", "SIGKILL", replace(good.verdict, interrupted=True))
    expected = "Stopped early. So far nothing was lost and nothing came twice."
    assert closing(stopped).plain == expected


def test_doubles_are_not_called_lost() -> None:
    run = Run()
    run.streams[1].append(line_text(1, 4))
    said = closing(Column("Holdfast", "SIGKILL", run.verdict())).plain
    assert said.splitlines() == ["Holdfast did not keep its word:", "  - 1 line came twice"]


def test_json_has_numbers_and_null_for_never() -> None:
    good, bad = (json.loads(json.dumps(to_json(column))) for column in columns())
    assert good["ok"] is True
    assert good["lines"] == {
        "expected": 12, "received": 12, "lost": 0, "doubled": 0, "out_of_order": 0,
    }  # fmt: skip
    assert good["failover_ms"] == {"p50": 100.0, "p99": 100.0, "max": 100.0}
    assert bad["failover_ms"] == {"p50": None, "p99": None, "max": None}
    assert bad["failovers_ms"] == [None]
    assert bad["complaints"]


def test_off_a_terminal_everything_is_a_plain_line() -> None:
    out = io.StringIO()
    console = Console(file=out, width=40, highlight=False)
    with Screen(console, lambda: SCENE) as screen:
        screen.say("a line that is longer than the console is wide, and stays one line")
        screen.note("cell 3 runs")
    assert out.getvalue().splitlines() == [
        "a line that is longer than the console is wide, and stays one line",
        "cell 3 runs",
    ]


def test_on_a_terminal_the_picture_is_drawn_below_what_is_said() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, highlight=False, force_terminal=True, no_color=True)
    with Screen(console, lambda: SCENE) as screen:
        screen.say("killed proxy-1")
        screen.note("cell 3 runs")
    assert "killed proxy-1" in out.getvalue()
    assert "cell 5 of 12" in out.getvalue()
    assert "cell 3 runs" not in out.getvalue()


def test_no_color_means_no_color() -> None:
    text = drawn(closing(columns()[0]), force_terminal=True, no_color=True)
    assert "\x1b[3" not in text
    assert "\x1b[1;3" not in text
