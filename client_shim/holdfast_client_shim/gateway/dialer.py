"""From a kernel and a session to an open websocket at whichever gateway answers first.

The preferred endpoint gets a head start; one that refuses is left for the next at once, one
that is merely slow (a frozen process accepts connections) gets company after ``HEAD_START``.
Only the winner is used: a RESUME goes out on it alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from holdfast_protocol.frames import STREAM_SUBPROTOCOL

from .endpoints import Endpoint, EndpointPool
from .upstream import DialFailed, Target, Upstream, dial

HEAD_START: Final = 0.25
DIAL_TIMEOUT: Final = 3.0


class Dialer:
    """Dials through a pool. ``target_of`` makes the request afresh, so its token is fresh."""

    def __init__(
        self, pool: EndpointPool, target_of: Callable[[Endpoint, str, str], Target]
    ) -> None:
        self._pool = pool
        self._target_of = target_of

    def __repr__(self) -> str:
        return f"<Dialer over {self._pool!r}>"

    async def connect(self, kernel_id: str, session_id: str) -> tuple[Endpoint, Upstream]:
        """The first websocket that opens. Raises DialFailed when no endpoint gives one.

        A refusal with an HTTP status is passed on before a broken connection, because it says
        more; the shortest Retry-After of all counts.
        """
        running: dict[asyncio.Task[Upstream], Endpoint] = {}
        waiting = self._pool.order(self._now())
        failures: list[DialFailed] = []
        try:
            while waiting or running:
                if waiting:
                    endpoint = waiting.pop(0)
                    target = self._target_of(endpoint, kernel_id, session_id)
                    running[asyncio.ensure_future(dial(target, timeout=DIAL_TIMEOUT))] = endpoint
                done, _ = await asyncio.wait(
                    running,
                    timeout=HEAD_START if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    endpoint = running.pop(task)
                    failure = task.exception()
                    if failure is None:
                        upstream = task.result()
                        self._pool.mark_up(endpoint)
                        self._pool.is_holdfast |= upstream.subprotocol == STREAM_SUBPROTOCOL
                        return endpoint, upstream
                    if not isinstance(failure, DialFailed):
                        raise failure
                    failures.append(failure)
                    if failure.status is None:
                        self._pool.mark_down(endpoint, self._now())
        finally:
            self._call_off(running)
        raise _sum_up(failures)

    @staticmethod
    def _call_off(running: dict[asyncio.Task[Upstream], Endpoint]) -> None:
        for task in running:
            task.cancel()
        for task in running:
            task.add_done_callback(_abandon)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _abandon(task: asyncio.Task[Upstream]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abandon()


def _sum_up(failures: list[DialFailed]) -> DialFailed:
    statuses = {failure.status for failure in failures}
    known = [failure.status for failure in failures if failure.status is not None]
    # 404 is the last word on a kernel only when nobody says anything else.
    status = 404 if statuses == {404} else next((s for s in known if s != 404), None)
    waits = [failure.retry_after for failure in failures if failure.retry_after is not None]
    text = "; ".join(dict.fromkeys(str(failure) for failure in failures))
    said = next((f.said for f in failures if f.said and f.status == status), "")
    return DialFailed(text, status=status, retry_after=min(waits, default=None), said=said)
