"""One structured line per event, as JSON for machines or coloured for people.

It knows structlog and the names of fields that hold secrets; it must not know who logs. A field
with such a name is blanked here as a last line of defence: callers do not pass secrets.

A line that cannot be written is lost, and nothing else: on a full disk the line that says so fails
as well, in the middle of what it was to report (a kernel's log that gives up its oldest entries).
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO, cast

import structlog

_SECRET = frozenset(
    {"credential", "access_token", "join_token", "token", "authorization", "password", "env"}
)


def configure_logs(*, format: Literal["console", "json"], level: str) -> None:  # noqa: A002 - the configuration's word
    """Send structlog and the libraries' logging to stderr."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _blank_secrets,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=unfailing(sys.stderr)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=max(threshold, logging.WARNING))


def unfailing(stream: TextIO) -> TextIO:
    """``stream`` for a logger to write to: what it cannot take, it drops."""
    return cast(TextIO, _Unfailing(stream))


class _Unfailing:
    """The two methods that structlog calls."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<unfailing {self._stream!r}>"

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _blank_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name in _SECRET.intersection(event):
        event[name] = "…"
    return event
