"""Fencing tokens and lease arithmetic: who may still act, as numbers and nothing else.

Knows no store, kernel or clock: ``now`` is passed in, always CLOCK_BOOTTIME seconds, which goes
on while a machine is suspended and is never set. Rejected: CLOCK_MONOTONIC, which stands still in
suspend, so that a woken proxy would believe in a lease that is long gone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from holdfast_protocol.errors import InvalidState, RecordError

_TOKEN = re.compile(r"(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})")

#: Seconds by which a proxy stops before its lease can end: for clock rates and for what was
#: sent a moment before and is still on its way.
FENCE_MARGIN = 1.0


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """A fencing token: totally ordered, ``era`` first.

    ``revision`` is the store's revision of the transaction that won the claim, so that of two
    claims of one kernel the later has the higher token. ``era`` rises when the store was restored
    from a backup, after which revisions repeat.
    """

    era: int
    revision: int

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read ``<era>.<revision>`` (the ``Holdfast-Fence`` header). Raises RecordError."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise RecordError(f"fencing token {text[:40]!r} is not <era>.<revision>")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def from_list(cls, value: object) -> Token:
        """Read ``[era, revision]``, as files and JSON answers hold it. Raises RecordError."""
        match value:
            case [int(era), int(revision)] if era >= 0 and revision >= 0:
                return cls(era, revision)
        raise RecordError(f"fencing token {str(value)[:40]} is not [era, revision]")

    def as_list(self) -> list[int]:
        """The inverse of ``from_list``."""
        return [self.era, self.revision]

    def __str__(self) -> str:
        return f"{self.era}.{self.revision}"


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease in the store, as its holder may rely on it.

    ``fence_at`` is the send time of the last answered keepalive + its time to live - margin.

    Invariant: while ``now < fence_at`` the store still has the lease, because it counts the time
    to live from when it handled a keepalive, which is after it was sent. So whoever checks just
    before acting acts within the lease, unless the act takes longer than the margin on its way;
    against that stand the compares of the store and the tokens at keepers and launchers.
    """

    lease_id: int
    fence_at: float

    @classmethod
    def granted(cls, lease_id: int, *, sent_at: float, ttl: float) -> Lease:
        """``sent_at``: before the grant or keepalive was sent; ``ttl``: seconds it answered."""
        return cls(lease_id, sent_at + ttl - FENCE_MARGIN)

    def renewed(self, *, sent_at: float, ttl: float) -> Lease:
        """After an answered keepalive. Never earlier than before: answers may come out of order."""
        fence_at = sent_at + ttl - FENCE_MARGIN
        return self if fence_at <= self.fence_at else replace(self, fence_at=fence_at)

    def holds(self, now: float) -> bool:
        return now < self.fence_at


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The highest token that a keeper or launcher has acknowledged for one kernel.

    Invariant: never lowered. ``offer`` raises for a lower one, so a paused or cut-off proxy whose
    kernel somebody else has claimed does no harm, whenever its call arrives.
    """

    token: Token

    def offer(self, token: Token) -> Acknowledged:
        """Raises InvalidState for a token below the acknowledged one."""
        if token < self.token:
            raise InvalidState(f"token {token} is below the acknowledged {self.token}")
        return self if token == self.token else Acknowledged(token)
