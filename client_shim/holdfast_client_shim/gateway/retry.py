"""How often one notebook server may try: waits with full jitter, a budget of retries, and turns.

A gateway that dies is left by all of a server's streams in the same moment. Each alone behaves
well; together they would dial a struggling gateway faster than it can answer, time out, and dial
again, and so keep it down (measured with 2,000 streams on two cores: a minute later 400 of them
were still out, where 3 seconds of work were to be done). So three things are shared by all of
them: a *turn* for each dial, which makes a crowd come back as fast as it is served; a *budget*
that repeated dials are paid from and good ones earn (the idea of Finagle's RetryBudget and of
gRPC's retry throttling, gRFC A6); and *full jitter*, so that no two servers fall in step.

``RetryBudget`` and ``full_jitter`` are pure: clock and random source are passed in. It must not
know what is dialled. Rejected: a fixed pause before each first dial (one notebook alone would
pay for a crowd that is not there), and a budget for each stream (2,000 budgets bound nothing).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

#: A dial that takes longer than this many seconds lets the next one begin: one kernel whose
#: host does not answer must not hold up the others.
TURN_SECONDS: Final = 0.5
#: Retries that a good dial earns, so that a gateway that is back is used by twice as many with
#: each answer, and not by all at once.
EARNED: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The knobs, each one ``HoldfastGatewayClient``'s. Raises ValueError for what cannot be.

    ``first_wait`` and ``longest_wait``: seconds between which the bound of a full-jitter wait
    doubles. ``tokens``: retries that may be made at once; ``tokens_per_second``: how fast they
    grow again without any success. ``dials_at_once``: dials under way at one moment.
    """

    first_wait: float = 0.05
    longest_wait: float = 2.0
    tokens: float = 100.0
    tokens_per_second: float = 20.0
    dials_at_once: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.first_wait <= self.longest_wait:
            raise ValueError("waits must be above 0, and the first not above the longest")
        if self.tokens < 1 or self.tokens_per_second <= 0:
            raise ValueError("without a token, or growth, nothing that broke would be tried again")
        if self.dials_at_once < 1:
            raise ValueError("at least one dial at a time is needed")


def full_jitter(
    policy: RetryPolicy, attempt: int, *, asked: float, pick: Callable[[float, float], float]
) -> float:
    """Seconds to wait after the ``attempt``-th dial in a row that failed, counted from 1.

    Anything between nothing and the bound, because only that keeps clients apart that failed
    together. What the gateway ``asked`` for (Retry-After) is waited besides: everybody was
    told the same, and would come at the same moment again. ``pick(low, high)`` is the random
    source.
    """
    # the exponent is bounded because 2.0 ** 1024 is an error
    bound = min(policy.longest_wait, policy.first_wait * 2.0 ** min(attempt - 1, 64))
    return asked + pick(0.0, bound)


class RetryBudget:
    """Tokens for dials that repeat a failed one, or that race one under way.

    Invariant: between any two moments no more retries are allowed than ``tokens``, plus what
    time and good dials earned between them. First dials after a connection that was of use
    need no token: they are as many as the connections that a gateway could hold.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._left = policy.tokens
        self._at = float("-inf")

    def __repr__(self) -> str:
        return f"<RetryBudget {self._left:.1f} of {self._policy.tokens:g}>"

    def left(self, now: float) -> float:
        """Tokens at ``now`` (seconds of a steady clock that never goes back)."""
        earned = max(0.0, now - self._at) * self._policy.tokens_per_second
        return min(self._policy.tokens, self._left + earned)

    def spend(self, now: float) -> bool:
        """One retry is to be made at ``now``. False: not now."""
        self._left, self._at = self.left(now), now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def earn(self, now: float) -> None:
        """A dial brought a connection."""
        self._left, self._at = min(self.left(now) + EARNED, self._policy.tokens), now


class Turns:
    """Lets a bounded number of dials be under way, first come, first served."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Turns {self._waiting} waiting>"

    @property
    def waiting(self) -> int:
        return self._waiting

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a turn and have it for the block, but for TURN_SECONDS at most."""
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        given_back = False

        def give_back() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self._free.release()

        timer = asyncio.get_running_loop().call_later(TURN_SECONDS, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()


class Pace:
    """What all streams of one notebook server share."""

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        *,
        pick: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.budget = RetryBudget(self.policy)
        self.turns = Turns(self.policy.dials_at_once)
        self._pick = pick

    def __repr__(self) -> str:
        return f"<Pace {self.budget!r} {self.turns!r}>"

    def wait(self, attempt: int, asked: float) -> float:
        """``full_jitter`` by this policy."""
        return full_jitter(self.policy, attempt, asked=asked, pick=self._pick)
