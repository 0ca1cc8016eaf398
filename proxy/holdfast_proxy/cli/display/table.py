"""Tables that fit: columns that matter less go first, and only then is text cut.

Pure: rows in, a rich table out. On a terminal of 80 columns the first things to know are there;
where there is no terminal nothing is left out or cut, because a program or a file has room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from .text import plain

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """``rank``: the highest goes first when there is no room; 0 never goes. ``least``: to how
    many cells its text may be cut; 0: it is not. ``wraps``: into lines rather than cut. ``right``:
    numbers."""

    key: str
    title: str
    rank: int = 0
    least: int = 0
    right: bool = False
    wraps: bool = False


Row = Mapping[str, object]


def chosen(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[Column]:
    """The columns that fit into ``width`` cells, cut as far as they may be."""
    left = [column for column in columns if _has_text(column, rows) or column.rank == 0]
    while sum(_need(column, rows) for column in left) + GAP * (len(left) - 1) > width:
        last = max(left, key=lambda column: column.rank)
        if last.rank == 0:
            break
        left.remove(last)
    return left


def table(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    width: int,
    styles: Mapping[str, str] | None = None,
) -> Table:
    """``styles``: a rich style for each word of a column ``status``, ``state`` or ``kind``."""
    shown = chosen(columns, rows, width)
    # One column takes what is left over; the others keep what they need.
    flexible = max(
        (column for column in shown if column.least), key=lambda c: _full(c, rows), default=None
    )
    fixed = sum(_full(c, rows) for c in shown if c is not flexible) + GAP * (len(shown) - 1)
    grid = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in shown:
        room = max(column.least, width - fixed) if column is flexible else None
        cut = room if room is not None and room < _full(column, rows) else None
        grid.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
            max_width=cut,
            min_width=None if column.least else min(_full(column, rows), width),
        )
    for row in rows:
        grid.add_row(*(_cell(column, row, styles or {}) for column in shown))
    return grid


def _cell(column: Column, row: Row, styles: Mapping[str, str]) -> Text:
    text = plain(row.get(column.key, ""))
    styled = column.key in ("status", "state", "kind", "level")
    return Text(text, style=styles.get(text, "") if styled else "")


def _has_text(column: Column, rows: Sequence[Row]) -> bool:
    return any(plain(row.get(column.key, "")) not in ("", "-") for row in rows)


def _full(column: Column, rows: Sequence[Row]) -> int:
    texts = [column.title, *(plain(row.get(column.key, "")) for row in rows)]
    return max(cell_len(text) for text in texts)


def _need(column: Column, rows: Sequence[Row]) -> int:
    full = _full(column, rows)
    return min(full, max(column.least, cell_len(column.title))) if column.least else full
