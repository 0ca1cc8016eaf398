"""Keeps one websocket to some gateway up: dial, hold, and dial again, without end.

It decides when and where to dial; what the websocket carries is its owner's. The first attempt
after a loss goes at once; waits begin only when an attempt brought nothing, with full jitter so
that many notebooks do not come back in step.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from logging import Logger
from typing import Final, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_never
from tenacity.wait import wait_random_exponential

from holdfast_protocol.errors import CloseCode

from ..gateway.dialer import Dialer
from ..gateway.endpoints import Endpoint
from ..gateway.upstream import DialFailed, Loss, Receiver, Upstream
from .monitor import StreamMonitor

#: A full-jitter wait doubles from the first to the second, in seconds.
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 2.0
LONGEST_RETRY_AFTER: Final = 10.0
#: So many times in a row must a gateway of another make say 404 before the kernel counts as gone.
PLAIN_404S: Final = 5
_GOING_AWAY: Final = 1001
#: So many connections in a row may a gateway close with a reason of its own within
#: ``SOON`` seconds of their start before the next dials have to wait.
FREE_CLOSES: Final = 3
SOON: Final = 5.0
#: So many losses may follow each other at once, and so many more each second, before the next
#: dial has to wait, however well each connection began.
FREE_LOSSES: Final = 10
LOSSES_PER_SECOND: Final = 1.0


class Verdict(Enum):
    """What the owner makes of a connection that ended."""

    AGAIN = "again"
    AT_ONCE = "at once"  # it was of no use, for a cause that is dealt with
    OVER = "over"


class Gateway(Protocol):
    """What a lifeline asks of the gateway client."""

    @property
    def dialer(self) -> Dialer: ...
    @property
    def is_holdfast(self) -> bool: ...
    def endpoint_lost(self, endpoint: Endpoint) -> None: ...
    async def explain(self, kernel_id: str) -> tuple[str, bool] | None: ...


class LossBudget:
    """Whether a redial may go out at once. Pure.

    A count of short connections was rejected: proxies that are really killed every two seconds
    would be answered with longer and longer waits, while a loop has hundreds of losses a second.
    """

    def __init__(self) -> None:
        self._left = float(FREE_LOSSES)
        self._at = float("-inf")

    def __repr__(self) -> str:
        return f"<LossBudget {self._left:.1f} left>"

    def spend(self, now: float) -> bool:
        """One connection was lost at ``now`` seconds. False: it was one too many."""
        earned = (now - self._at) * LOSSES_PER_SECOND
        self._left, self._at = min(self._left + earned, float(FREE_LOSSES)), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Owner(Receiver, Protocol):
    """Whose connection it is."""

    def opened(self, upstream: Upstream) -> bool:
        """A websocket is open and not read yet. False: it is not what is needed."""

    def closed(self, upstream: Upstream, loss: Loss) -> Verdict:
        """It is gone."""

    def over(self, reason: str, *, failed: bool) -> None:
        """No connection will come any more. ``failed``: by a bug of ours."""


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    jitter = float(wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)(state))
    asked = error.retry_after if isinstance(error, DialFailed) else None
    return max(jitter, min(asked or 0.0, LONGEST_RETRY_AFTER))


class _Over(Exception):
    """Nothing more to dial; carries the reason, or nothing when the owner knows already."""


class Lifeline:
    """``start`` it when a connection is wanted, ``stop`` it when not."""

    def __init__(
        self, *, kernel_id: str, session_id: str, gateway: Gateway, owner: Owner,
        monitor: StreamMonitor, log: Logger,
    ) -> None:  # fmt: skip
        self._kernel_id = kernel_id
        self._session_id = session_id
        self._gateway = gateway
        self._owner = owner
        self._monitor = monitor
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._gone: asyncio.Future[Loss] | None = None
        self._useful = False
        self._not_found = 0
        self._closes = 0
        self._losses = LossBudget()
        self._outage: float | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._task is None else "outage" if self._outage else "running"
        return f"<Lifeline {self._kernel_id} {state}>"

    @property
    def running(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        """Idempotent."""
        if self._task is None:
            self._monitor.dialling()
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"holdfast {self._kernel_id}"
            )

    def stop(self) -> None:
        """Idempotent. The connection, if there is one, is the owner's to abandon."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._monitor.rested()

    def useful(self) -> None:
        """The connection does what it is for: its successor will be dialled at once."""
        self._useful = True
        if self._outage is not None:
            seconds = self._now() - self._outage
            self._log.warning("holdfast: kernel %s is back after %.1f s", self._kernel_id, seconds)
            self._outage = None

    def connection_gone(self, loss: Loss) -> None:
        """To be called by the owner when its connection says so."""
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(loss)

    async def _run(self) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(DialFailed),
            wait=_wait,
            stop=stop_never,
            before_sleep=self._note_outage,
        )
        try:
            while True:
                # A fresh count of attempts after each connection that was of use.
                await retrying.copy()(self._connect_once)
        except _Over as over:
            self._task = None
            if over.args:
                self._owner.over(str(over), failed=False)
        except Exception as error:  # the task's outer edge: a bug must not look like silence
            self._task = None
            self._log.exception("holdfast: kernel %s: unexpected", self._kernel_id)
            self._owner.over(f"the notebook server's link failed ({error!r})", failed=True)

    async def _connect_once(self) -> None:
        try:
            endpoint, upstream = await self._gateway.dialer.connect(
                self._kernel_id, self._session_id
            )
        except DialFailed as failure:
            self._judge_refusal(failure)
            self._monitor.failed(failure)
            raise
        self._monitor.opened(endpoint.name)
        self._not_found = 0
        self._useful = False
        begun = self._now()
        loss = await self._hold(upstream)
        # 1012 before anything came only says "dial again": a kernel that was starting is ready.
        leaving = loss.code in (CloseCode.COME_BACK, _GOING_AWAY) and self._useful
        if loss.code is None or leaving:
            self._gateway.endpoint_lost(endpoint)
        self._log.info(
            "holdfast: connection of kernel %s by %s ended: %s %s",
            self._kernel_id, endpoint.name, loss.code or "", loss.reason,
        )  # fmt: skip
        verdict = self._owner.closed(upstream, loss)
        if verdict is Verdict.OVER:
            raise _Over
        self._monitor.dialling()
        refused = loss.code is not None and not leaving and self._now() - begun < SOON
        self._closes = self._closes + 1 if refused else 0
        at_once = self._losses.spend(self._now())
        if verdict is Verdict.AT_ONCE and at_once:
            return
        if not self._useful or not at_once or self._closes > FREE_CLOSES:
            raise DialFailed(f"{endpoint.name} closed: {loss.code or ''} {loss.reason}")

    async def _hold(self, upstream: Upstream) -> Loss:
        self._gone = asyncio.get_running_loop().create_future()
        try:
            if not self._owner.opened(upstream):
                return Loss(int(CloseCode.OVERLOAD), f"speaks {upstream.subprotocol or 'legacy'}")
            upstream.begin(self._owner)
            return await self._gone
        finally:
            upstream.abandon()

    def _judge_refusal(self, failure: DialFailed) -> None:
        if failure.status != 404:
            self._not_found = 0
            return
        self._not_found += 1
        if self._gateway.is_holdfast or self._not_found >= PLAIN_404S:
            raise _Over("the kernel is gone") from failure

    def _note_outage(self, state: RetryCallState) -> None:
        if self._outage is None:
            self._outage = self._now()
            error = state.outcome.exception() if state.outcome else None
            self._log.warning(
                "holdfast: no gateway for kernel %s: %s; trying on", self._kernel_id, error
            )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
