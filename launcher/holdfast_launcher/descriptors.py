"""How many files and connections the operating system lets a launcher and its keepers have.

A keeper has seven descriptors for each notebook of its kernel. The soft limit is 1024 on most
machines, for the sake of programs that use select(2), which these do not. Keepers that a launcher
forks have its limit; one that an engine starts elsewhere asks for itself, and kernels inherit it.
"""

from __future__ import annotations

import resource
from typing import Final

#: More is not asked for: a hard limit of a billion, as some containers have, makes older programs
#: (kernels among them) walk through a billion descriptors.
ENOUGH: Final = 65_536


def wanted_limit(soft: int, hard: int) -> int:
    """The soft limit to have, given both (RLIM_INFINITY is -1). Never lower than it is."""
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH:
        return soft
    return ENOUGH if hard == resource.RLIM_INFINITY else max(soft, min(hard, ENOUGH))


def raise_limit() -> int:
    """Raise the soft limit towards the hard one; what it is now. Never raises."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = wanted_limit(soft, hard)
    if wanted != soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # a sandbox may forbid it
            return soft
    return wanted
