"""Times for people: how long ago, and the clock on their wall. Pure; ``now`` is passed in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse(stamp: str | None) -> datetime | None:
    """An ISO 8601 time, UTC where it names no zone; None for what is no time."""
    try:
        moment = datetime.fromisoformat(stamp or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def ago(stamp: str | None, now: datetime) -> str:
    """``12 s ago``; ``-`` for no time, ``now`` within a second or for a clock that is ahead."""
    moment = parse(stamp)
    if moment is None:
        return "-"
    seconds = (now - moment).total_seconds()
    return "now" if seconds < 1 else f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """A length of time in one unit: ``0.4 s``, ``12 s``, ``5 min``, ``3 h``, ``2 d``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    if seconds < 129_600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} d"


def clock(stamp: str | None, now: datetime, zone: tzinfo | None = None) -> str:
    """The local time of day, with the date when it is not today's."""
    moment = parse(stamp)
    if moment is None:
        return "-"
    local, today = moment.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        return local.strftime("%H:%M:%S")
    return local.strftime("%Y-%m-%d %H:%M:%S")


def both(stamp: str | None, now: datetime, zone: tzinfo | None = None) -> str:
    """``12 s ago (14:03:22)``."""
    if parse(stamp) is None:
        return "-"
    return f"{ago(stamp, now)} ({clock(stamp, now, zone)})"


def since(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """``10m``, ``2h30m``, ``90s``, ``1d``, ``14:05``, or an ISO 8601 time. Raises ValueError."""
    text = text.strip()
    if re.fullmatch(r"(\d+(?:\.\d+)?[smhd])+", text):
        pieces = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
        return now - timedelta(seconds=sum(float(n) * _UNITS[unit] for n, unit in pieces))
    of_day = re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", text)
    if of_day is not None:
        hour, minute, second = (int(part or 0) for part in of_day.groups())
        local = now.astimezone(zone)
        found = local.replace(hour=hour, minute=minute, second=second, microsecond=0)
        return found if found <= local else found - timedelta(days=1)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.astimezone(zone)
