"""A keeper that an engine sees through its infrastructure only: a job, a pod, a far process.

It knows nothing of any engine: whoever watches the infrastructure calls ``see`` with what it saw,
and this turns it into what the contract promises (callbacks once, waiting, evidence).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from signal import Signals
from typing import Any

from holdfast_launcher.engines.contract import JobState, Keeper, LaunchFailed, Stage


class WatchedKeeper(Keeper):
    """``cancel`` begins to end it by force and returns at once; ``send_signal`` sends its keeper a
    signal. ``identity``: what names it on the infrastructure."""

    def __init__(
        self,
        *,
        identity: Mapping[str, Any],
        state: JobState,
        cancel: Callable[[], None],
        send_signal: Callable[[Signals], Awaitable[None]] | None = None,
    ) -> None:
        self._identity = dict(identity)
        self._state = state
        self._cancel = cancel
        self._send_signal = send_signal
        self._gone = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._released = False
        if state.stage is Stage.ENDED:
            self._gone.set()

    def __repr__(self) -> str:
        return f"WatchedKeeper({self._identity}, {self._state.stage.value}: {self._state.text})"

    @property
    def alive(self) -> bool:
        return not self._gone.is_set()

    @property
    def reason(self) -> str | None:
        return None if self.alive else self._state.text

    @property
    def handle(self) -> Mapping[str, Any]:
        return self._identity

    def describe(self) -> JobState:
        return self._state

    def see(self, state: JobState, **identity: Any) -> None:
        """What the infrastructure says now. Ended is for good; ``identity`` is added to what
        names it (a node, a job's number)."""
        if self._released or not self.alive:
            return
        self._identity |= identity
        self._state = state
        if state.stage is Stage.ENDED:
            self._gone.set()
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback()

    def on_gone(self, callback: Callable[[], None]) -> None:
        if self._gone.is_set():
            asyncio.get_running_loop().call_soon(callback)
        else:
            self._callbacks.append(callback)

    async def wait_gone(self, *, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True

    def kill(self) -> None:
        if self.alive:
            self._cancel()

    async def signal(self, number: Signals) -> None:
        if self._send_signal is None:
            raise LaunchFailed(f"this engine can send no {number.name}")
        if self.alive:
            await self._send_signal(number)

    def release(self) -> None:
        self._released = True
        self._callbacks.clear()

    @property
    def released(self) -> bool:
        """Nobody listens any more: whoever watches may stop."""
        return self._released
