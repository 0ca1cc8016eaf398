"""The timeline as it is read: what etcd has of it, and what this proxy has yet to write. Pure.

Several proxies may have written the same thing (a proxy that is gone is seen to go by all that
are left); of the lines with one ``mark`` the first counts. Names begin with the wall time in
milliseconds, so their order is that of time as far as the proxies' clocks agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from holdfast_protocol.records import EventRecord
from holdfast_proxy.overview import Line
from holdfast_proxy.ownership.cache import Entry

#: Lines that are kept; more than any picture of a day shows.
KEPT = 2_000


def read_lines(
    stored: Mapping[str, Entry[EventRecord]], pending: Iterable[tuple[str, EventRecord]]
) -> list[Line]:
    """The lines, oldest first, each mark once."""
    records = {name: entry.record for name, entry in stored.items()}
    records.update(pending)
    marks: set[str] = set()
    lines = []
    for name in sorted(records):
        record = records[name]
        if record.mark is not None:
            if record.mark in marks:
                continue
            marks.add(record.mark)
        lines.append(_line(record))
    return lines


def has_mark(stored: Mapping[str, Entry[EventRecord]], mark: str) -> bool:
    """Whether another proxy has written it."""
    return any(entry.record.mark == mark for entry in stored.values())


def surplus(stored: Iterable[str], *, keep: int = KEPT) -> Sequence[str]:
    """Names of the oldest lines, which are more than ``keep``."""
    names = sorted(stored)
    return names[: max(0, len(names) - keep)]


def _line(record: EventRecord) -> Line:
    return Line(
        time=record.at,
        kind=record.kind,
        kernel=record.kernel_id,
        proxy=record.proxy_id,
        launcher=record.launcher_id,
        detail=record.detail,
        facts=record.facts,
    )
