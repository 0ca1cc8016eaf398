"""How far a drain is, from what the other proxies say of the one that drains. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..access.cluster import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The proxy and its kernels before it was asked. ``kernels``: ids that it owned."""

    proxy_id: str
    url: str
    boot_id: str
    tunnels: int | None
    kernels: frozenset[str]
    alone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One look. ``gone``: the process that was asked is not there any more; ``restarted``: another
    one has its id; ``owners``: who has its kernels now; ``waiting``: kernels without an owner."""

    gone: bool
    restarted: bool
    owners: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0

    @property
    def done(self) -> bool:
        return self.gone and self.waiting == 0

    def sentence(self, before: Before) -> str:
        """What a person is told while it goes on."""
        if not self.gone:
            return f"{before.proxy_id} is draining"
        if self.waiting:
            return f"{before.proxy_id} is gone; {self.waiting} kernels wait for an owner"
        taken = ", ".join(f"{name} has {count}" for name, count in sorted(self.owners.items()))
        back = ", and was started again by what supervises it" if self.restarted else ""
        moved = f"; of its {len(before.kernels)} kernels {taken}" if taken else ""
        return f"{before.proxy_id} is drained{back}{moved}"


def before_drain(seen: Seen, proxy: Mapping[str, Any]) -> Before:
    """``proxy``: its row."""
    proxy_id = str(proxy["id"])
    others = [row for row in seen.proxies if row["id"] != proxy_id and row["status"] == "ready"]
    return Before(
        proxy_id=proxy_id,
        url=str(proxy["url"]),
        boot_id=str(proxy["boot_id"]),
        tunnels=proxy.get("tunnels"),
        kernels=frozenset(k["id"] for k in seen.kernels if k.get("owner") == proxy_id),
        alone=not others,
    )


def step_of(before: Before, seen: Seen) -> Step:
    """From a look by way of any proxy."""
    row = next((row for row in seen.proxies if row["id"] == before.proxy_id), None)
    restarted = row is not None and row["boot_id"] != before.boot_id
    owners: dict[str, int] = {}
    waiting = 0
    for kernel in seen.kernels:
        if kernel["id"] not in before.kernels or kernel.get("state") == "dead":
            continue
        owner = kernel.get("owner")
        if owner is None or (owner == before.proxy_id and not restarted):
            waiting += 1
        else:
            owners[owner] = owners.get(owner, 0) + 1
    return Step(gone=row is None or restarted, restarted=restarted, owners=owners, waiting=waiting)


def step_alone(before: Before, boot_id: str | None) -> Step:
    """When there is no other proxy to ask: whether its own address still answers, as whom."""
    restarted = boot_id is not None and boot_id != before.boot_id
    return Step(gone=boot_id != before.boot_id, restarted=restarted)
