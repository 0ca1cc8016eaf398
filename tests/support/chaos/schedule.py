"""Which fault happens when: a pure function of the seed, so that a run can be had again.

Kinds are dealt from a shuffled deck that holds each as often as it weighs, so that a short run
has seen most of them; a card that cannot be played yet keeps its place. Bounds that it keeps: at
most two of the proxies impaired at the same time (except in the short windows in which all are
away on purpose), one fault at etcd at a time, one per launcher; a kernel's keeper is killed at
most twice, because its launcher replaces three in ten minutes. Rejected: drawing from the clock or
from what was hit, which no seed repeats.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Kind(Enum):
    """A fault. ``proxy``, ``line`` (client to proxy) and ``hole`` (packets) impair one proxy."""

    PROXY_KILL = "proxy-kill"
    PROXY_TERM = "proxy-term"
    PROXY_STOP = "proxy-stop"
    PROXY_ROLL = "proxy-roll"
    PROXY_ALL_KILL = "proxy-all-kill"
    LAUNCHER_KILL = "launcher-kill"
    LAUNCHER_TERM = "launcher-term"
    LAUNCHER_STOP = "launcher-stop"
    LAUNCHER_ROLL = "launcher-roll"
    KEEPER_KILL = "keeper-kill"
    KEEPER_STOP = "keeper-stop"
    ETCD_KILL = "etcd-kill"
    ETCD_STOP = "etcd-stop"
    ETCD_LEADER_KILL = "etcd-leader-kill"
    ETCD_QUORUM_STOP = "etcd-quorum-stop"
    LINE_RESET = "line-reset"
    LINE_CUT = "line-cut"
    LINE_DELAY = "line-delay"
    LINE_SLOW = "line-slow"
    LINE_DEAF = "line-deaf"
    LINE_MUTE = "line-mute"
    STORE_RESET = "store-line-reset"
    STORE_DELAY = "store-line-delay"
    STORE_DEAF = "store-line-half-open"
    HOLE_BOTH = "hole-both"
    HOLE_ONE_WAY = "hole-one-way"
    NODE_CUT = "node-cut"
    NODE_ONE_WAY = "node-one-way"
    NODE_RESET = "node-reset"
    NODE_SLOW = "node-slow"
    DISK_FULL = "disk-full"


@dataclass(frozen=True, slots=True)
class _Rule:
    weight: int
    shortest: float
    longest: float
    targets: int
    #: What is taken while it lasts; ``#`` stands for the target.
    takes: str


_PROXIES: Final = 3
_LAUNCHERS: Final = 2
_NODE: Final = 1
#: Seconds in which what was hit comes back before it is hit again. A proxy's start takes several
#: on a machine that is busy with all of this.
_RECOVERY: Final = {"proxy#": 8.0, "proxies": 8.0}
_USUAL_RECOVERY: Final = 4.0
_GROUPS: Final = ("proxies", "launchers", "node")
_PATIENCE: Final = 8
_FEW: Final = 6
_KEEPERS: Final = 12
_SAME_KEEPER: Final = 2

_RULES: Final[dict[Kind, _Rule]] = {
    Kind.PROXY_KILL: _Rule(4, 0.2, 4, _PROXIES, "proxy#"),
    Kind.PROXY_TERM: _Rule(2, 0.5, 3, _PROXIES, "proxy#"),
    Kind.PROXY_STOP: _Rule(3, 0.5, 9, _PROXIES, "proxy#"),
    Kind.PROXY_ROLL: _Rule(1, 8, 8, 1, "proxies"),
    Kind.PROXY_ALL_KILL: _Rule(1, 1, 4, 1, "proxies"),
    Kind.LAUNCHER_KILL: _Rule(2, 0.2, 6, _LAUNCHERS, "launcher#"),
    Kind.LAUNCHER_TERM: _Rule(1, 0.2, 4, _LAUNCHERS, "launcher#"),
    Kind.LAUNCHER_STOP: _Rule(1, 1, 8, _LAUNCHERS, "launcher#"),
    Kind.LAUNCHER_ROLL: _Rule(1, 5, 5, 1, "launchers"),
    Kind.KEEPER_KILL: _Rule(1, 2, 2, _KEEPERS, "keeper#"),
    Kind.KEEPER_STOP: _Rule(1, 0.5, 5, _KEEPERS, "keeper#"),
    Kind.ETCD_KILL: _Rule(1, 1, 8, 3, "etcd"),
    Kind.ETCD_STOP: _Rule(1, 1, 8, 3, "etcd"),
    Kind.ETCD_LEADER_KILL: _Rule(1, 1, 6, 1, "etcd"),
    Kind.ETCD_QUORUM_STOP: _Rule(1, 4, 14, 3, "etcd"),
    Kind.LINE_RESET: _Rule(2, 0.1, 0.1, _PROXIES, "line#"),
    Kind.LINE_CUT: _Rule(3, 0.1, 0.1, _PROXIES, "line#"),
    Kind.LINE_DELAY: _Rule(1, 2, 8, _PROXIES, "line#"),
    Kind.LINE_SLOW: _Rule(1, 2, 8, _PROXIES, "line#"),
    Kind.LINE_DEAF: _Rule(1, 1, 6, _PROXIES, "proxy#"),
    Kind.LINE_MUTE: _Rule(1, 1, 6, _PROXIES, "proxy#"),
    Kind.STORE_RESET: _Rule(1, 0.1, 0.1, _PROXIES, "store#"),
    Kind.STORE_DELAY: _Rule(1, 2, 8, _PROXIES, "store#"),
    Kind.STORE_DEAF: _Rule(1, 2, 9, _PROXIES, "store#"),
    Kind.HOLE_BOTH: _Rule(1, 1, 6, _PROXIES, "proxy#"),
    Kind.HOLE_ONE_WAY: _Rule(1, 1, 6, _PROXIES, "proxy#"),
    Kind.NODE_CUT: _Rule(1, 1, 9, 1, "node"),
    Kind.NODE_ONE_WAY: _Rule(1, 1, 9, 2, "node"),
    Kind.NODE_RESET: _Rule(1, 0.5, 1, 1, "node"),
    Kind.NODE_SLOW: _Rule(1, 3, 8, 1, "node"),
    Kind.DISK_FULL: _Rule(1, 4, 10, 1, "disk"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``kind`` hits ``target`` ``at`` seconds after the work began, for ``seconds``."""

    number: int
    at: float
    kind: Kind
    target: int
    seconds: float

    @property
    def ends(self) -> float:
        return self.at + self.seconds

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.kind.value} {self.target} for {self.seconds:.1f} s"


def plan(seed: int, seconds: float, *, only: frozenset[Kind] | None = None) -> list[Fault]:
    """The faults of a run, in order; all are over after ``seconds``. ``only``: of these kinds."""
    return _Dealer(random.Random(f"holdfast chaos {seed}"), seconds, only).deal()


class _Dealer:
    """Draws faults and keeps account of what is taken until when."""

    def __init__(
        self, draw: random.Random, seconds: float, only: frozenset[Kind] | None = None
    ) -> None:
        self._draw = draw
        self._seconds = seconds
        self._rules = {kind: rule for kind, rule in _RULES.items() if not only or kind in only}
        self._deck: list[Kind] = []
        #: How often a fault that needs several parts at once was passed over: from some times on
        #: nobody else may take those parts, or its turn would never come.
        self._passed: dict[Kind, int] = {}
        self._taken: dict[str, float] = {}
        self._keepers: dict[int, int] = {}
        self._faults: list[Fault] = []

    def deal(self) -> list[Fault]:
        now = 1.0
        while now < self._seconds:
            self._one(round(now, 2))
            now += min(5.0, max(0.2, self._draw.expovariate(1 / 1.6)))
        return self._faults

    def _one(self, now: float) -> None:
        """The first card that can be played now; the others keep their places."""
        if len(self._deck) <= _FEW:
            fresh = [kind for kind, rule in self._rules.items() for _ in range(rule.weight)]
            self._draw.shuffle(fresh)
            self._deck += fresh
        for place, kind in enumerate(self._deck):
            if self._try(kind, now):
                del self._deck[place]
                self._passed.pop(kind, None)
                return
            if self._rules[kind].takes in _GROUPS:
                self._passed[kind] = self._passed.get(kind, 0) + 1

    def _try(self, kind: Kind, now: float) -> bool:
        rule = self._rules[kind]
        target = self._draw.randrange(rule.targets)
        seconds = round(self._draw.uniform(rule.shortest, rule.longest), 2)
        ends = now + seconds
        if ends + 1.0 > self._seconds or not self._is_free(rule.takes, target, now):
            return False
        if kind is Kind.KEEPER_KILL:
            if self._keepers.get(target, 0) >= _SAME_KEEPER:
                return False
            self._keepers[target] = self._keepers.get(target, 0) + 1
        for name in _names(rule.takes, target):
            self._taken[name] = ends + _RECOVERY.get(rule.takes, _USUAL_RECOVERY)
        fault = Fault(
            number=len(self._faults) + 1, at=now, kind=kind, target=target, seconds=seconds
        )
        self._faults.append(fault)
        return True

    def _is_free(self, takes: str, target: int, now: float) -> bool:
        names = _names(takes, target)
        if any(self._taken.get(name, 0.0) > now for name in names):
            return False
        if takes not in _GROUPS:
            late = [kind for kind, times in self._passed.items() if times >= _PATIENCE]
            awaited = {name for kind in late for name in _names(self._rules[kind].takes, 0)}
            if awaited.intersection(names):
                return False
        if takes == "proxy#":
            busy = [self._taken.get(f"proxy{n}", 0.0) > now for n in range(_PROXIES)]
            return sum(busy) < _PROXIES - 1
        return True


def _names(takes: str, target: int) -> list[str]:
    if takes == "proxies":
        return [f"proxy{n}" for n in range(_PROXIES)]
    if takes == "launchers":
        return [f"launcher{n}" for n in range(_LAUNCHERS)]
    if takes == "node":
        # The launcher of the node is not to be judged by two faults at a time.
        return ["node", f"launcher{_NODE}"]
    return [takes.replace("#", str(target))]
