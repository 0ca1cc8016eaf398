"""What is kept of a stream for the case that this process dies. Pure values.

The keeper knows what it has accepted and what was acknowledged to it, so a successor needs
only what no keeper can know: which requests were open, what number each has (or that it was
never sent), and the log that they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast_protocol.frames import NO_EPOCH

#: A request's ``seq`` when the keeper has surely accepted it.
ACCEPTED = 0


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request without an answer. ``seq``: its number in the session, ``ACCEPTED``, or None for
    one that had no number yet."""

    channel: str
    header: Mapping[str, Any] = field(repr=False)
    seq: int | None


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One session of one kernel. ``epoch``: of the log it was at, ``NO_EPOCH`` before the first
    contact; ``position``: up to where the notebook provably had it."""

    kernel_id: str
    session_id: str
    epoch: bytes = NO_EPOCH
    position: int = 0
    requests: tuple[RequestRecord, ...] = ()


def never_sent(record: StreamRecord, accepted: int | None) -> tuple[RequestRecord, ...]:
    """Requests that died with their process. ``accepted``: the highest number that a keeper
    with the record's epoch, or with any if it names none, has taken of this session; None where
    nobody counts, and so nothing can be called lost.

    One without a number is lost only if the keeper never took anything: an earlier process may
    have sent it between its last note and its end, and what runs must not be called lost.
    """
    if accepted is None:
        return ()
    return tuple(
        request
        for request in record.requests
        if (request.seq is None and accepted == 0)
        or (request.seq is not None and request.seq > accepted)
    )
