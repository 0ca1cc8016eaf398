"""How things stand behind a proxy's edge at the moment of a scrape: plain values, no ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """As this proxy has seen it. ``kernels``: by state; ``owned``: by this proxy, ``effective`` of
    them with a token that keeper and launcher have acknowledged. ``lease_age``: seconds since the
    renewal that etcd last answered was sent; ``fenced_in``: seconds until this proxy must stop to
    act (negative: it has), both None without a lease. ``leads``: None where there is no leader.
    ``stale_tokens``: answers of keepers and launchers that a token of ours is not the highest.
    ``unseen_seconds``: for how long the watch has not shown a write of our own."""

    kernels: Mapping[str, int] = field(default_factory=dict)
    unreadable: int = 0
    owned: int = 0
    effective: int = 0
    lease_age: float | None = None
    fenced_in: float | None = None
    leads: bool | None = None
    proxies: int = 0
    launchers: int = 0
    stale_tokens: int = 0
    unseen_seconds: float = 0.0
