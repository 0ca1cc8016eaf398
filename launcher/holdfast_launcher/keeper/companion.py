"""What goes along with a keeper whose machine has no launcher: a job's, a pod's.

The keeper knows this face and no engine. A companion runs beside the keeper from the moment that
``keeper.json`` is written, and says what a signal from the machine means, so that an end that was
announced is told from a crash. ``Announcer`` brings an announcement into the notebook.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from signal import Signals
from typing import Final

from holdfast_protocol.jupyter import encode_v1

from .serve.hub import Hub
from .serve.notices import Notices

#: How often cells that began after an announcement are looked for, in seconds.
_LOOK: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What a signal announces. ``notice`` is for the notebook; ``final``: the kernel's end has
    begun, and ``reason`` is why it is dead then."""

    notice: str
    reason: str
    final: bool


class Companion(ABC):
    """All methods are called on the keeper's loop."""

    @abstractmethod
    async def run(self) -> None:
        """Runs beside the keeper until cancelled. Raising ends the keeper, with status 1."""

    @abstractmethod
    def foresee(self, number: Signals) -> Foreseen | None:
        """What the machine means by a signal; None: nothing in particular."""


class Announcer:
    """Says something in every cell that runs, and in each that begins later: once a cell."""

    def __init__(self, hub: Hub, writer: Notices) -> None:
        self._hub = hub
        self._writer = writer
        self._text: str | None = None
        self._told: set[str] = set()
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Announcer {self._text!r}>"

    def announce(self, text: str) -> None:
        """From now on, instead of what was announced before."""
        if text != self._text:
            self._text, self._told = text, set()
            self._tell()
            self._news.set()

    async def run(self) -> None:
        """Until cancelled. Costs nothing before the first announcement."""
        await self._news.wait()
        while True:
            self._tell()
            await asyncio.sleep(_LOOK)

    def _tell(self) -> None:
        if self._text is None:
            return
        hub = self._hub
        kernel = hub.host.info().kernel_session or hub.epoch.hex()
        for request in hub.requests.all_given():
            if request.msg_type == "execute_request" and request.msg_id not in self._told:
                self._told.add(request.msg_id)
                hub.journal.append(encode_v1(self._writer.stderr(kernel, request, self._text)))
                for session in hub.sessions.attached:
                    session.wake()
