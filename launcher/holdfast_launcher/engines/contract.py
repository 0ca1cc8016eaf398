"""What an engine is: it starts keepers somewhere, finds them again, and proves that they ended.

An engine knows processes, jobs or pods; it must not know fences, HTTP, heartbeats or who owns a
kernel. The agent above decides, an engine acts. Evidence is the point of the contract (DESIGN
promise 7): ``alive`` is True until the infrastructure itself says that the keeper is gone, and
silence is not evidence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast_launcher.keeper.config import KeeperConfig


class LaunchFailed(Exception):
    """No keeper came up and none of it is left; the message carries its last words."""


class Keeper(ABC):
    """One keeper that an engine started or found again."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """False only on evidence."""

    @property
    @abstractmethod
    def reason(self) -> str | None:
        """Why it is not alive, for the user; None while it is."""

    @property
    @abstractmethod
    def handle(self) -> Mapping[str, Any]:
        """What names it on the infrastructure: ``engine_handle`` on the wire."""

    @abstractmethod
    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call back once, on the loop, when ``alive`` turns False; soon if it is already."""

    @abstractmethod
    async def wait_gone(self, *, timeout: float) -> bool:
        """Wait until it is gone; False when ``timeout`` seconds passed first."""

    @abstractmethod
    def kill(self) -> None:
        """End it by force, without asking. Idempotent; ``wait_gone`` tells when."""

    @abstractmethod
    def release(self) -> None:
        """Stop watching and leave it alone: the launcher goes, the keeper stays."""


class Engine(ABC):
    """All methods run on the agent's loop. One instance per launcher."""

    #: What heartbeat and handles call it.
    name: str

    @abstractmethod
    async def start(self) -> None:
        """Get ready to launch; quick, what takes long goes on in the background."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything; keepers and kernels stay (DESIGN promise 5). Idempotent."""

    @abstractmethod
    async def launch(self, config: KeeperConfig) -> Keeper:
        """Start a keeper; return when its ``keeper.json`` is in ``config.state_dir``.

        Raises LaunchFailed; then no process of this launch is left. Raises OSError or
        RuntimeError when there is nothing to start one with (descriptors, threads, memory); then
        ``find`` tells whether a keeper came of it all the same.
        """

    @abstractmethod
    async def find(self, directory: Path) -> Keeper | None:
        """The keeper that lives in a kernel's state directory, or None on evidence of none."""

    @abstractmethod
    async def end_kernel(self, directory: Path, *, mark: str, timeout: float) -> bool:
        """End by force whatever a keeper that is gone left running: its kernel and what that
        started (known by ``mark`` in the environment). True when proven that nothing is left."""
