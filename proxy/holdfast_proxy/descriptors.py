"""How many connections the operating system lets this process have.

Every open notebook is two descriptors here. The soft limit is 1024 on most machines, for the sake
of programs that use select(2), which this one does not; the hard limit is what the administrator
means. Must not know what the descriptors are for.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

import structlog

#: More is not asked for: a hard limit of a billion, as some containers have, makes older programs
#: walk through a billion descriptors.
ENOUGH: Final = 65_536
#: What a proxy needs besides its tunnels.
RESERVED: Final = 128
#: Below this many notebooks the administrator is told.
FEW: Final = 2_000
_log: Final = structlog.get_logger("holdfast.server")


@dataclass(frozen=True, slots=True)
class DescriptorLimit:
    """``before`` and ``now``: the soft limit; ``tunnels``: how many notebooks that is good for."""

    before: int
    now: int

    @property
    def tunnels(self) -> int:
        return max(0, (self.now - RESERVED) // 2)


def wanted_limit(soft: int, hard: int) -> int:
    """The soft limit to have, given both (RLIM_INFINITY is -1). Never lower than it is."""
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH:
        return soft
    return ENOUGH if hard == resource.RLIM_INFINITY else max(soft, min(hard, ENOUGH))


def raise_limit() -> DescriptorLimit:
    """Raise the soft limit towards the hard one; what came of it. Never raises."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = wanted_limit(soft, hard)
    if wanted == soft:
        return DescriptorLimit(soft, soft)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a sandbox may forbid it
        return DescriptorLimit(soft, soft)
    return DescriptorLimit(soft, wanted)


def warn_of_few(limit: DescriptorLimit) -> None:
    """Say so when it is good for few notebooks."""
    if limit.now != resource.RLIM_INFINITY and limit.tunnels < FEW:
        _log.warning(
            "few file descriptors: raise the hard limit (LimitNOFILE=, ulimit -Hn)",
            limit=limit.now, good_for_notebooks=limit.tunnels,
        )  # fmt: skip
