"""The five channels that jupyter_client's ``KernelClient`` has, on one inbox instead of sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast_protocol.errors import FrameError

from .inbox import Ended, Inbox
from .messages import from_v1


def dead_kernel(reason: str) -> RuntimeError:
    """nbclient's DeadKernelError where there is nbclient, otherwise the RuntimeError that it is."""
    text = f"the kernel is dead: {reason}"
    try:
        from nbclient.exceptions import DeadKernelError
    except ImportError:
        return RuntimeError(text)
    return DeadKernelError(text)


class Channel:
    """One of shell, control, stdin and iopub. ``send`` takes a message for the kernel."""

    def __init__(
        self, name: str, inbox: Inbox, send: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self.name = name
        self._inbox = inbox
        self._send = send
        self._alive = False

    def __repr__(self) -> str:
        return f"<Channel {self.name} {'open' if self._alive else 'closed'}>"

    def start(self) -> None:
        """Open it."""
        self._alive = True

    def stop(self) -> None:
        """Close it. Idempotent."""
        self._alive = False

    close = stop

    def is_alive(self) -> bool:
        """Whether it is open."""
        return self._alive

    def send(self, msg: dict[str, Any]) -> None:
        """Pass a message on to the kernel; it gets there once, now or after an outage."""
        self._send(self.name, msg)

    async def msg_ready(self) -> bool:
        """Whether ``get_msg`` would answer at once."""
        return self._inbox.ready(self.name)

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message, within ``timeout`` seconds (None: however long it takes).

        Raises queue.Empty when none came; DeadKernelError, with the reason, when none will.
        """
        while True:
            try:
                data = await self._inbox.get(self.name, timeout)
            except Ended as end:
                raise dead_kernel(str(end)) from None
            try:
                return from_v1(data)
            except FrameError:
                continue  # as jupyter_client does with what it cannot read

    async def get_msgs(self) -> list[dict[str, Any]]:
        """All messages that wait."""
        messages = []
        while self._inbox.ready(self.name):
            messages.append(await self.get_msg(timeout=0))
        return messages


class Heartbeat:
    """The hb channel: it beats as long as the gateway has not said that the kernel is gone."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._alive = False

    def __repr__(self) -> str:
        return f"<Heartbeat {'beating' if self.is_beating() else 'stopped'}>"

    def start(self) -> None:
        """Open it."""
        self._alive = True

    def stop(self) -> None:
        """Close it. Idempotent."""
        self._alive = False

    close = stop

    def is_alive(self) -> bool:
        """Whether it is open."""
        return self._alive

    def is_beating(self) -> bool:
        """Whether nothing says that the kernel is dead; being out of reach does not."""
        return not self._inbox.over

    def pause(self) -> None:
        """Nothing beats here that could be paused."""

    unpause = pause
