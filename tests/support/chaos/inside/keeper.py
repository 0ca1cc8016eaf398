"""``support.chaos.inside.keeper:run``: a keeper whose tokens and effects are written down.

The keeper is the product's own; its fence, lifecycle and kernel host are replaced by subclasses
and a wrapper that note what they are asked and pass it on. With ``$CHAOS_PLANT`` they do wrong.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace

from holdfast_launcher.keeper import main
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.keeper.fence import Fence, StaleToken
from holdfast_launcher.keeper.kernel import build_kernel_host
from holdfast_launcher.keeper.ports import KernelHost, KernelInfo, KernelListener
from holdfast_launcher.keeper.serve.lifecycle import After, Lifecycle
from holdfast_protocol.fencing import Token
from holdfast_protocol.jupyter import Message
from holdfast_protocol.pieces import Pieces

from .trace import Plant, Trace, planted

_TRACE = Trace("keeper")
_kernel_id = ""
_token: ContextVar[Token | None] = ContextVar("token", default=None)
#: Which message of its kind a planted fault hits, and after it each as many further on.
_EVERY = 40


def _pair(token: Token) -> tuple[int, int]:
    era, revision = token.as_list()
    return era, revision


class TracedFence(Fence):
    """Notes what was acknowledged; with the plant it refuses nobody."""

    def check(self, token: Token) -> None:
        try:
            super().check(token)
        except StaleToken:
            if planted() is not Plant.STALE_TOKEN:
                raise

    async def acknowledge(self, token: Token) -> None:
        try:
            await super().acknowledge(token)
        except StaleToken:
            if planted() is not Plant.STALE_TOKEN:
                raise
            return
        _TRACE.fenced(_kernel_id, _pair(token))


class TracedLifecycle(Lifecycle):
    """Tells the host under which token it is called."""

    async def start(self, token: Token, nonce: str) -> None:
        _token.set(token)
        await super().start(token, nonce)

    async def restart(self, token: Token, after: list[After]) -> None:
        _token.set(token)
        await super().restart(token, after)

    async def shutdown(self, token: Token, *, now: bool) -> None:
        _token.set(token)
        await super().shutdown(token, now=now)


class TracedHost(KernelHost):
    """Notes what takes effect; with the plant it gives some cells to the kernel twice."""

    def __init__(self, host: KernelHost) -> None:
        self._host = host
        self._cells = 0

    def info(self) -> KernelInfo:
        return self._host.info()

    def open_session(self, session_id: str) -> None:
        self._host.open_session(session_id)

    def close_session(self, session_id: str) -> None:
        self._host.close_session(session_id)

    def send(self, session_id: str, message: Message) -> None:
        self._host.send(session_id, message)
        if message.msg_type == "execute_request":
            self._cells += 1
            if planted() is Plant.DOUBLE_EXECUTION and self._cells % 2 == 0:
                # The same bytes would not do: a kernel refuses a signature that it has seen.
                self._host.send(session_id, replace(message, metadata=b'{"again":true}'))

    async def start(self) -> None:
        self._note("start")
        await self._host.start()

    async def interrupt(self) -> None:
        await self._host.interrupt()

    async def restart(self) -> None:
        self._note("restart")
        await self._host.restart()

    async def shutdown(self, *, now: bool) -> None:
        self._note("shutdown")
        await self._host.shutdown(now=now)

    def _note(self, call: str) -> None:
        token = _token.get()
        if token is not None:  # None: an adoption, which nobody asked for
            _TRACE.acted(_kernel_id, call, _pair(token))


class LossyListener(KernelListener):
    """The plant that loses output: every so manieth stream message is not passed on."""

    def __init__(self, listener: KernelListener) -> None:
        self._listener = listener
        self._streams = 0

    def published(self, v1: bytes | Pieces, message: Message) -> None:
        if message.msg_type == "stream":
            self._streams += 1
            if self._streams % _EVERY == 0:
                return
        self._listener.published(v1, message)

    def answered(self, session_id: str, v1: bytes | Pieces, message: Message) -> None:
        self._listener.answered(session_id, v1, message)

    def lost(self, count: int, reason: str) -> None:
        self._listener.lost(count, reason)

    def incarnation_ended(self, incarnation: int, state: str, reason: str) -> None:
        self._listener.incarnation_ended(incarnation, state, reason)

    def incarnation_ready(self, incarnation: int) -> None:
        self._listener.incarnation_ready(incarnation)

    def state_changed(self) -> None:
        self._listener.state_changed()


def _build_host(config: KeeperConfig, listener: KernelListener) -> KernelHost:
    if planted() is Plant.SILENT_LOSS:
        listener = LossyListener(listener)
    return TracedHost(build_kernel_host(config, listener))


def run(config: KeeperConfig, ready_fd: int | None = None) -> int:
    """Be a keeper, as `holdfast_launcher.keeper.main.run`."""
    global _kernel_id  # a keeper is one process for one kernel
    _kernel_id = config.kernel_id
    main.Fence = TracedFence  # type: ignore[misc]
    main.Lifecycle = TracedLifecycle  # type: ignore[misc]
    return main.run(config, ready_fd, build_host=_build_host)
