"""The streams of this server, by kernel and session: they outlive the notebooks' websockets.

jupyter_server discards its connection object with the browser's websocket; the stream stays here
until the notebook has been away for ``KEEP_SECONDS`` or the kernel is gone.
"""

from __future__ import annotations

import asyncio
from logging import Logger
from typing import Final

from .kernel_stream import KernelStream
from .lifeline import Gateway

KEEP_SECONDS: Final = 600.0
#: How long a lifecycle call waits for a session's first contact with its keeper.
NUMBERED_WITHIN: Final = 3.0


class StreamRegistry:
    """All streams towards one gateway cluster."""

    def __init__(self, gateway: Gateway, log: Logger) -> None:
        self._gateway = gateway
        self._log = log
        self._streams: dict[tuple[str, str], KernelStream] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        return f"<StreamRegistry of {len(self._streams)}>"

    def __len__(self) -> int:
        return len(self._streams)

    def enter(self, kernel_id: str, session_id: str) -> KernelStream:
        """The session's stream, a new one if there is none; it is kept until ``leave``."""
        key = (kernel_id, session_id)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key not in self._streams:
            self._streams[key] = KernelStream(
                kernel_id=kernel_id,
                session_id=session_id,
                gateway=self._gateway,
                log=self._log,
                gone=self.drop,
            )
        return self._streams[key]

    def leave(self, stream: KernelStream, *, resumable: bool) -> None:
        """A notebook left. Without a session id it cannot come back, so nothing is kept for it."""
        key = (stream.kernel_id, stream.session_id)
        if stream.attached or self._streams.get(key) is not stream:
            return
        if not resumable and stream.idle:
            self.drop(stream)
        elif key not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(KEEP_SECONDS, self.drop, stream)

    def of_kernel(self, kernel_id: str) -> list[KernelStream]:
        return [stream for (kernel, _), stream in self._streams.items() if kernel == kernel_id]

    def drop(self, stream: KernelStream) -> None:
        """Close and forget a stream. Idempotent."""
        key = (stream.kernel_id, stream.session_id)
        if self._streams.get(key) is stream:
            del self._streams[key]
            timer = self._timers.pop(key, None)
            if timer is not None:
                timer.cancel()
        stream.close()

    def kernel_gone(self, kernel_id: str, reason: str) -> None:
        """The kernel is gone for this server: tell its notebooks, forget its streams."""
        for stream in self.of_kernel(kernel_id):
            stream.over(reason, failed=False)

    async def after(self, kernel_id: str) -> list[str]:
        """``Holdfast-After`` values for a call that must not overtake what was sent before."""
        streams = self.of_kernel(kernel_id)
        await asyncio.gather(*(stream.wait_numbered(NUMBERED_WITHIN) for stream in streams))
        return [value for stream in streams if (value := stream.after()) is not None]

    def close(self) -> None:
        """The server stops."""
        for stream in list(self._streams.values()):
            self.drop(stream)
