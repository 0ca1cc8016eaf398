"""Starts that their launcher's engine has accepted and that wait there for their turn.

Their record stays ``starting`` without an endpoint, which is what any next owner resumes from.
This asks the launcher for news, keeps what the user is to read, and has the start driven on when
it waits no more. It must not know how a start goes on, nor write a record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import KernelRecord, KernelState
from holdfast_protocol.records import KernelReport
from holdfast_proxy.errors import Unavailable
from holdfast_proxy.ownership.background import SingleFlight
from holdfast_proxy.ownership.calls.launcher_client import Handle, LauncherError
from holdfast_proxy.ownership.parts import Parts

_log = structlog.get_logger(__name__)

#: How long a launcher may hold back an answer that brings no news, in seconds.
_WAIT = 10
#: Between two questions to a launcher that does not answer or does not hold back.
_PAUSE = 1.0


class QueuedStart(Exception):
    """The engine has accepted the start; ``reason`` says what it waits for."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Queued:
    """``drive`` takes up a start that waits no more."""

    def __init__(self, parts: Parts, drive: Callable[[str, Token], None]) -> None:
        self._parts = parts
        self._drive = drive
        self._flights = SingleFlight(parts.tasks)

    def __repr__(self) -> str:
        return f"<Queued {self._flights!r}>"

    def follow(self, kernel_id: str, token: Token) -> None:
        """Ask for news in the background until there is no more to wait for."""
        self._flights.begin(kernel_id, lambda: self._follow(kernel_id, token))

    def waits(self, kernel_id: str, record: KernelRecord) -> bool:
        """Whether the start is known to wait, here or by its launcher's heartbeat."""
        if record.state is not KernelState.STARTING or record.endpoint is not None:
            return False
        return kernel_id in self._flights or why_queued(self._parts, kernel_id, record) is not None

    def note(self, kernel_id: str, record: KernelRecord, handle: Handle) -> None:
        """What it waits for, until the next heartbeat says it anew."""
        report = KernelReport(
            nonce=record.nonce,
            alive=True,
            reason=handle.reason,
            execution_state="starting",
            state="pending",
        )
        self._parts.reports.note(kernel_id, record, report)

    async def _follow(self, kernel_id: str, token: Token) -> None:
        parts = self._parts
        while parts.ownership.token(kernel_id) == token:
            entry = parts.cached(kernel_id)
            if entry is None or entry.record.state is not KernelState.STARTING:
                return
            began = parts.clock.now()
            try:
                target = parts.launchers.target(entry.record.launcher_id)
                handle = await parts.launcher_client.find(target, kernel_id, wait=_WAIT)
            except (LauncherError, Unavailable) as error:
                _log.debug("no news of a start", kernel=kernel_id, error=str(error))
            else:
                same = handle is not None and handle.nonce == entry.record.nonce
                if handle is None or not same or not handle.pending:
                    self._drive(kernel_id, token)
                    return
                self.note(kernel_id, entry.record, handle)
            # News may come one after another; a launcher that is away is not asked in a loop.
            if parts.clock.now() - began < _PAUSE / 4:
                await asyncio.sleep(_PAUSE / 4)


def why_queued(parts: Parts, kernel_id: str, record: KernelRecord) -> str | None:
    """What a start waits for, in its launcher's words; None: nothing is known of that."""
    report = parts.reports.of(kernel_id, record)
    if report is None or not report.alive or report.state != "pending":
        return None
    return report.reason or "it waits for its turn"
