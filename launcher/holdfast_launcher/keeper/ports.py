"""The seam between a keeper's two halves: the kernel side and the serving side.

``kernel/`` owns the kernel process and its ZMQ sockets; ``serve/`` owns the log, the sessions
and the websockets. Each knows only these two abstractions of the other, so each is tested
against a fake of the other. All methods are called on the keeper's event loop thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from holdfast_protocol.jupyter import Message
from holdfast_protocol.pieces import Pieces


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """What the kernel side knows at a moment.

    ``incarnation`` counts kernel processes from 1 (0: none started yet); ``execution_state`` is
    one of starting, idle, busy, restarting, dead; ``reason`` says why it is dead.
    """

    incarnation: int
    execution_state: str
    reason: str | None
    pid: int | None
    kernel_session: str | None


class KernelListener(ABC):
    """What the kernel side tells the serving side, in the order in which it happened."""

    @abstractmethod
    def published(self, v1: bytes | Pieces, message: Message) -> None:
        """An iopub message for everybody. ``v1`` is its wire form, made once; a long one refers
        to what was received."""

    @abstractmethod
    def answered(self, session_id: str, v1: bytes | Pieces, message: Message) -> None:
        """A shell, control or stdin message for one session."""

    @abstractmethod
    def lost(self, count: int, reason: str) -> None:
        """The kernel itself dropped about ``count`` messages here (its counters skipped)."""

    @abstractmethod
    def incarnation_ended(self, incarnation: int, state: str, reason: str) -> None:
        """The kernel process is gone. ``state``, as clients are told: ``restarting`` (it crashed,
        another follows), ``starting`` (somebody asked for another) or ``dead``.

        Everything that the old incarnation still said has been delivered before this. The
        serving side logs the synthetic status and answers what was accepted and not answered.
        """

    @abstractmethod
    def incarnation_ready(self, incarnation: int) -> None:
        """A new kernel answers, its iopub is connected; what is sent now is delivered."""

    @abstractmethod
    def state_changed(self) -> None:
        """``KernelHost.info()`` answers something else than before."""


class KernelHost(ABC):
    """What the serving side asks of the kernel side."""

    @abstractmethod
    def info(self) -> KernelInfo: ...

    @abstractmethod
    def open_session(self, session_id: str) -> None:
        """Make the session's sockets (shell and stdin share one identity). Idempotent.

        Sessions stay open over restarts: each incarnation gives them new sockets.
        """

    @abstractmethod
    def close_session(self, session_id: str) -> None:
        """Forget a session that expired. Idempotent."""

    @abstractmethod
    def send(self, session_id: str, message: Message) -> None:
        """Give one client message to the kernel, in order per channel; never blocks.

        Call only between ``incarnation_ready`` and ``incarnation_ended``; raises
        holdfast_protocol.errors.InvalidState otherwise. Each channel has a queue of its own:
        a full shell never holds up control or stdin.
        """

    @abstractmethod
    async def start(self) -> None:
        """Start the kernel; return when it is ready. Raises KernelStartFailed."""

    @abstractmethod
    async def interrupt(self) -> None:
        """By signal or by message, as the kernelspec says."""

    @abstractmethod
    async def restart(self) -> None:
        """End this incarnation (asking first) and start the next; return when it is ready."""

    @abstractmethod
    async def shutdown(self, *, now: bool) -> None:
        """End the kernel for good; ``now`` kills without asking. Idempotent."""


class KernelStartFailed(Exception):
    """The kernel did not come up; ``output`` holds the last lines of its stdout and stderr."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output
