"""Bugs in the ownership of kernels, put in by a test for as long as it runs, and what each breaks.

As in ``stream_bugs``: what a bug replaces is what prevents it in the product, or in the fakes that
stand for keepers and launchers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast_protocol.fencing import Token
from holdfast_proxy.ownership.kernels.endings import Endings
from holdfast_proxy.ownership.kernels.orphans import Orphans
from holdfast_proxy.ownership.kernels.sweep import Sweep
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.ownership.parts import Parts
from simulation.ownership_stories import Blow, Story
from simulation.simulated_node import SimulatedKeeper
from support.fake_launcher import Fenced

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Bug:
    """``story`` with ``blow`` at some await point shows that ``claim`` is broken."""

    name: str
    plant: Plant
    story: Story
    blow: Blow
    claim: str


def _no_fences(patch: pytest.MonkeyPatch) -> None:
    """Keepers and launchers take any token, and remember the highest."""

    def check(self: Fenced, request: Any) -> None:
        token = Token.parse(request.headers["Holdfast-Fence"])
        self.fence = token if self.fence is None else max(self.fence, token)

    patch.setattr(Fenced, "check", check)


def _forgetful_fences(patch: pytest.MonkeyPatch) -> None:
    """The last token counts, not the highest."""

    def check(self: Fenced, request: Any) -> None:
        self.fence = Token.parse(request.headers["Holdfast-Fence"])

    patch.setattr(Fenced, "check", check)


def _unguarded(patch: pytest.MonkeyPatch) -> None:
    """Nothing is checked right before it is sent."""
    patch.setattr(Parts, "leased_guard", lambda self, *args: lambda: None)
    patch.setattr(Member, "require", lambda self: None)


def _nobody_resumes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sweep, "step", lambda self, kernel_id, token: None)


def _tombstone_first(patch: pytest.MonkeyPatch) -> None:
    """The record is buried before the kernel is proven gone, and nobody looks for strangers."""

    async def ended(self: Endings, *args: Any) -> bool:
        return True

    patch.setattr(Endings, "_end_kernel", ended)
    patch.setattr(Orphans, "_met", lambda self, *args: None)


def _started_each_time(patch: pytest.MonkeyPatch) -> None:
    """The keeper's start is not idempotent."""
    start = SimulatedKeeper._start

    async def again(self: SimulatedKeeper, request: Any) -> Any:
        self.kernel.incarnation = 0
        return await start(self, request)

    patch.setattr(SimulatedKeeper, "_start", again)


def _deleted_in_words(patch: pytest.MonkeyPatch) -> None:
    """A deletion is answered, and nothing done."""

    async def delete(self: Endings, *args: Any) -> None:
        """Nothing."""

    patch.setattr(Endings, "delete", delete)


BUGS = [
    Bug("no fences", _no_fences, Story.RESTART, Blow.KILL_LATE, "EFFECT"),
    Bug("forgetful fences", _forgetful_fences, Story.RESTART, Blow.KILL_LATE, "MONOTONE"),
    Bug("unguarded", _unguarded, Story.START, Blow.FREEZE, "LEASE"),
    Bug("nobody resumes", _nobody_resumes, Story.DELETE, Blow.KILL, "AGREEMENT"),
    Bug("tombstone first", _tombstone_first, Story.DELETE, Blow.KILL, "AGREEMENT"),
    Bug("started each time", _started_each_time, Story.START, Blow.KILL, "ONCE"),
    Bug("deleted in words", _deleted_in_words, Story.DELETE, Blow.KILL, "ANSWERED"),
]
