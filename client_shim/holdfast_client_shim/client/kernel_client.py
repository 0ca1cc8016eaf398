"""jupyter_client's client of a kernel, on a stream that resumes instead of ZMQ sockets.

Everything that only builds a message (``execute``, ``complete``, ``input`` …) is jupyter_client's.
Its own channels, its polling of sockets and its way of finding out whether a kernel is ready
(a question every second until one is answered) are not: here the first question arrives.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from queue import Empty
from typing import TYPE_CHECKING, Any, Final

from jupyter_client.asynchronous.client import AsyncKernelClient

from .channels import Channel, Heartbeat, dead_kernel
from .messages import to_v1

if TYPE_CHECKING:
    from .leg import ProgramLeg
    from .manager import HoldfastKernelManager

#: Seconds after a reply in which the kernel's ``idle`` is waited for.
IDLE_WITHIN: Final = 10.0


class HoldfastKernelClient(AsyncKernelClient):
    """Made by ``HoldfastKernelManager.client``. Each has a session of its own."""

    def __init__(self, *, parent: HoldfastKernelManager, **kwargs: Any) -> None:
        """``parent`` has a kernel."""
        super().__init__(parent=parent, **kwargs)
        self.kernel_id = str(parent.kernel_id)
        self._link = parent.link
        self._leg: ProgramLeg | None = None
        self._channels: dict[str, Channel] = {}
        self._heart: Heartbeat | None = None

    def __repr__(self) -> str:
        return f"<HoldfastKernelClient of {self.kernel_id} {self._leg!r}>"

    # channels

    def start_channels(
        self,
        shell: bool = True,
        iopub: bool = True,
        stdin: bool = True,
        hb: bool = True,
        control: bool = True,
    ) -> None:
        """Join the kernel's session; the connection itself comes, and comes back, by itself."""
        leg = self._joined()
        wanted = {"shell": shell, "iopub": iopub, "stdin": stdin, "control": control}
        for name, want in wanted.items():
            if want:
                self._channel(name).start()
        self.allow_stdin = stdin
        if hb:
            self._heart = self._heart or Heartbeat(leg.inbox)
            self._heart.start()

    def stop_channels(self) -> None:
        """Leave the session. Idempotent. The kernel stays."""
        for channel in self._channels.values():
            channel.stop()
        if self._heart is not None:
            self._heart.stop()
        leg, self._leg = self._leg, None
        if leg is not None:
            self._link.detach(self.kernel_id, self.session.session, leg)

    @property
    def channels_running(self) -> bool:
        """Whether any of them is open."""
        return any(channel.is_alive() for channel in self._channels.values())

    @property
    def shell_channel(self) -> Channel:
        """Requests and their replies."""
        return self._channel("shell")

    @property
    def iopub_channel(self) -> Channel:
        """What the kernel says to everybody."""
        return self._channel("iopub")

    @property
    def stdin_channel(self) -> Channel:
        """What the kernel asks the user."""
        return self._channel("stdin")

    @property
    def control_channel(self) -> Channel:
        """Requests that do not wait for others."""
        return self._channel("control")

    @property
    def hb_channel(self) -> Heartbeat:
        """Whether the kernel lives, as far as the gateway knows."""
        if self._heart is None:
            self._heart = Heartbeat(self._joined().inbox)
        return self._heart

    @property
    def ended(self) -> str | None:
        """Why the kernel is no more; None while it is, or when that is not known."""
        return None if self._leg is None else self._leg.inbox.ended

    def expect_restart(self) -> None:
        """The kernel is being restarted on purpose."""
        if self._leg is not None:
            self._leg.restart_expected = True

    def _channel(self, name: str) -> Channel:
        if name not in self._channels:
            self._channels[name] = Channel(name, self._joined().inbox, self._send)
        return self._channels[name]

    def _joined(self) -> ProgramLeg:
        if self._leg is None:
            self._channels.clear()
            self._heart = None
            self._leg = self._link.attach(self.kernel_id, self.session.session)
        return self._leg

    def _send(self, channel: str, message: dict[str, Any]) -> None:
        self._link.send(self.kernel_id, self.session.session, to_v1(channel, message))

    # the kernel's life

    async def is_alive(self) -> bool:
        """Whether nothing says that the kernel is dead; one out of reach is alive."""
        if self._leg is not None:
            return not self._leg.inbox.over  # later than the channels, which know the reason
        parent = self.parent
        if parent is not None and hasattr(parent, "is_alive"):
            return bool(await parent.is_alive())
        return True

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until the kernel answers. Raises RuntimeError after ``timeout`` seconds, with what
        the gateway says of the kernel, and when the kernel is dead."""
        deadline = None if timeout is None else time.monotonic() + timeout
        msg_id = self.kernel_info()
        try:
            reply = await self._reply_to(msg_id, deadline)
        except Empty:
            trouble = self._link.trouble(self.kernel_id)
            raise RuntimeError(
                f"Kernel didn't respond in {timeout:g} seconds{f' ({trouble})' if trouble else ''}"
            ) from None
        self._handle_kernel_info_reply(reply)
        try:
            await self._idle_after(msg_id)
        except Empty:
            self.log.warning("holdfast: kernel %s answers and says no idle", self.kernel_id)

    async def _reply_to(self, msg_id: str, deadline: float | None) -> dict[str, Any]:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            message = await self.shell_channel.get_msg(timeout=left)
            if message["parent_header"].get("msg_id") == msg_id:
                return message

    async def _idle_after(self, msg_id: str) -> None:
        """Take everything from iopub up to the end of a request."""
        deadline = time.monotonic() + IDLE_WITHIN
        while True:
            left = max(0.0, deadline - time.monotonic())
            if _is_idle(await self.iopub_channel.get_msg(timeout=left), msg_id):
                return

    async def execute_interactive(
        self,
        code: str,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: dict[str, Any] | None = None,
        allow_stdin: bool | None = None,
        stop_on_error: bool = True,
        timeout: float | None = None,
        output_hook: Callable[[dict[str, Any]], Any] | None = None,
        stdin_hook: Callable[[dict[str, Any]], Any] | None = None,
    ) -> dict[str, Any]:
        """Execute code, show what it says as it comes, and return the reply.

        ``output_hook`` is given each iopub message of it, ``stdin_hook`` each question of it.
        Raises TimeoutError after ``timeout`` seconds.
        """
        if allow_stdin is None:
            allow_stdin = self.allow_stdin
        msg_id = self.execute(
            code, silent=silent, store_history=store_history, user_expressions=user_expressions,
            allow_stdin=allow_stdin, stop_on_error=stop_on_error,
        )  # fmt: skip
        deadline = None if timeout is None else time.monotonic() + timeout
        show = output_hook or self._output_hook_default
        ask = stdin_hook or self._stdin_hook_default
        try:
            while True:
                if allow_stdin and await self.stdin_channel.msg_ready():
                    await _maybe(ask(await self.stdin_channel.get_msg(timeout=0)))
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                # a question is looked for a few times a second: it comes by another channel
                message = await self._output(left if not allow_stdin else min(0.1, left or 0.1))
                if message is None:
                    if deadline is not None and time.monotonic() >= deadline:
                        raise Empty
                    continue
                if message["parent_header"].get("msg_id") == msg_id:
                    await _maybe(show(message))
                    if _is_idle(message, msg_id):
                        return await self._reply_to(msg_id, deadline)
        except Empty:
            raise TimeoutError("Timeout waiting for output") from None

    async def _output(self, timeout: float | None) -> dict[str, Any] | None:
        if self.ended is not None and not await self.iopub_channel.msg_ready():
            raise dead_kernel(self.ended)
        try:
            return await self.iopub_channel.get_msg(timeout=timeout)
        except Empty:
            return None


def _is_idle(message: dict[str, Any], msg_id: str) -> bool:
    if message["msg_type"] != "status" or message["parent_header"].get("msg_id") != msg_id:
        return False
    return bool(message["content"].get("execution_state") == "idle")


async def _maybe(result: Any) -> None:
    if inspect.isawaitable(result):
        await result
