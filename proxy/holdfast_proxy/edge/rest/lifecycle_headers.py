"""The headers that accompany a lifecycle call, read into a ``LifecycleCall``. Pure.

``Holdfast-Request``, ``Holdfast-After`` and ``Holdfast-Max-Age`` (wire.md). The age limit counts
from the request's arrival, also for a forwarded request: each hop counts its own stay. A stock
client sends none of them; a delete or restart then still has an age limit, because its sender
will not wait for ever and may have asked another proxy meanwhile.
"""

from __future__ import annotations

import math
import re
from typing import Final

from multidict import CIMultiDictProxy

from ...cluster import LifecycleCall
from ...errors import BadRequest, Unavailable

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MAX_AFTER: Final = 64


def read_request_id(headers: CIMultiDictProxy[str]) -> str | None:
    """``Holdfast-Request``, or None. Raises BadRequest."""
    value = headers.get("Holdfast-Request")
    if value is not None and _REQUEST_ID.fullmatch(value) is None:
        raise BadRequest("Holdfast-Request must be 1 to 128 of A-Z a-z 0-9 . _ -")
    return value


def read_call(
    headers: CIMultiDictProxy[str],
    *,
    arrival: float,
    default_max_age: float | None,
    forwarded_by: str | None,
) -> LifecycleCall:
    """The call that these headers describe. ``arrival``: CLOCK_BOOTTIME seconds.

    ``default_max_age`` None: without the header there is no deadline. Raises BadRequest.
    """
    max_age = _read_max_age(headers.get("Holdfast-Max-Age"), default_max_age)
    return LifecycleCall(
        request_id=read_request_id(headers),
        after=_read_after(headers.getall("Holdfast-After", [])),
        deadline=None if max_age is None else arrival + max_age,
        forwarded_by=forwarded_by,
    )


def refuse_if_late(call: LifecycleCall, *, now: float) -> None:
    """Raise Unavailable when the call was held longer than it means anything.

    Its sender has long seen it fail and has perhaps repeated it elsewhere: to act on it now would
    restart or end a kernel that somebody is using.
    """
    if call.deadline is not None and now > call.deadline:
        raise Unavailable(
            "this request was held here for longer than its age limit and has not been carried "
            "out: ask again",
            retry_after=0.0,
        )


def _read_max_age(value: str | None, default: float | None) -> float | None:
    if value is None:
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise BadRequest("Holdfast-Max-Age must be a number of seconds, zero or more")
    return seconds


def _read_after(values: list[str]) -> tuple[tuple[str, int], ...]:
    if len(values) > _MAX_AFTER:
        raise BadRequest(f"more than {_MAX_AFTER} Holdfast-After headers")
    pairs: list[tuple[str, int]] = []
    for value in values:
        session, colon, seq = value.rpartition(":")
        if not (colon and session and seq.isascii() and seq.isdecimal()):
            raise BadRequest("Holdfast-After must be <session>:<seq>")
        pairs.append((session, int(seq)))
    return tuple(pairs)
