"""Which launcher gets a new kernel: a pure choice from what is known of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A launcher with a lease. ``load``: kernels placed on it that are not dead or deleted;
    ``capacity``: how many it takes, None for no bound."""

    launcher_id: str
    specs: Collection[str]
    load: int
    capacity: int | None


class NoPlace(Exception):
    """No launcher can take the kernel; the message says why, for the user."""

    def __init__(self, message: str, *, unknown_spec: bool = False) -> None:
        super().__init__(message)
        self.unknown_spec = unknown_spec


def capacity_of(capacity: Mapping[str, object]) -> int | None:
    """How many kernels a launcher's ``capacity`` allows; nonsense is no bound."""
    kernels = capacity.get("kernels")
    return kernels if isinstance(kernels, int) and not isinstance(kernels, bool) else None


def place(candidates: Collection[Candidate], *, spec_name: str, avoid: Collection[str] = ()) -> str:
    """The launcher with the smallest share of its capacity in use; ties go by load, then name.

    Raises NoPlace.
    """
    if not candidates:
        raise NoPlace("no launcher is connected; start one, or wait until it is")
    able = [item for item in candidates if spec_name in item.specs]
    if not able:
        raise NoPlace(f"no launcher has a kernel named {spec_name!r}", unknown_spec=True)
    free = [
        item
        for item in able
        if item.launcher_id not in avoid and (item.capacity is None or item.load < item.capacity)
    ]
    if not free:
        raise NoPlace("every launcher that has this kernel is full or cannot be reached")
    return min(free, key=_weight).launcher_id


def _weight(item: Candidate) -> tuple[float, int, str]:
    share = 0.0 if not item.capacity else item.load / item.capacity
    return share, item.load, item.launcher_id
