"""May this proxy own kernels? The one question in which the two modes differ.

Ownership, starts and sweeps ask an ``Authority`` and know nothing of modes. Byte streams and
interrupts never ask: every proxy tunnels in every mode (docs/design/architecture.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from holdfast_proxy.store.contract import Compare

#: Called when this proxy has become able to own kernels, or has ceased to be; must not block.
Listener = Callable[[], None]


class Authority(ABC):
    """What the mode says about this proxy."""

    def __init__(self) -> None:
        self._on_gained: list[Listener] = []
        self._on_lost: list[Listener] = []

    @property
    @abstractmethod
    def may_own(self) -> bool:
        """As far as this proxy has seen; the store decides by ``compares``."""

    @property
    @abstractmethod
    def leader(self) -> str | None:
        """The one proxy that may own kernels; None when all may, or when none is known."""

    @property
    @abstractmethod
    def compares(self) -> list[Compare]:
        """What every claim's transaction compares besides. Raises Unavailable without authority.

        Invariant: they hold in the store exactly while this proxy's authority stands, so a claim
        that commits was allowed at its revision, whatever this proxy has seen since.
        """

    @property
    @abstractmethod
    def passive(self) -> str | None:
        """Why no new client should be sent here, as a sentence; None when they should."""

    @abstractmethod
    async def run(self) -> None:
        """Do what the mode needs, for ever."""

    @abstractmethod
    async def resign(self) -> None:
        """Give the authority up, for a drain. What fails expires with the lease."""

    def on_gained(self, listener: Listener) -> None:
        self._on_gained.append(listener)

    def on_lost(self, listener: Listener) -> None:
        self._on_lost.append(listener)


class EveryProxy(Authority):
    """active-active: membership is all it takes."""

    def __repr__(self) -> str:
        return "<EveryProxy may own>"

    @property
    def may_own(self) -> bool:
        return True

    @property
    def leader(self) -> str | None:
        return None

    @property
    def compares(self) -> list[Compare]:
        return []

    @property
    def passive(self) -> str | None:
        return None

    async def run(self) -> None:
        """Nothing to do."""

    async def resign(self) -> None:
        """Nothing to give up."""
