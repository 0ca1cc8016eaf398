"""When may client messages be given to a new kernel? A pure decision.

A kernel is reachable when its shell has answered a nudge (a ``kernel_info_request`` of ours) and
something has arrived on iopub: ``iopub_welcome`` (JEP 65) or any other message. Before, a cell's
output could be published to nobody, because a SUB connects when it connects. A kernel that is
adopted may be busy for hours, so there an answer on control is as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Next(Enum):
    """What to do now."""

    READY = "ready"
    NUDGE = "nudge"  # answered, but iopub did not hear it: the subscription came late
    WAIT = "wait"


@dataclass(slots=True)
class Readiness:
    """What has been seen of one incarnation."""

    adopted: bool = False
    shell: bool = False
    control: bool = False
    iopub: bool = False

    @property
    def answered(self) -> bool:
        return self.shell or (self.adopted and self.control)

    def decide(self) -> Next:
        if self.answered and self.iopub:
            return Next.READY
        return Next.NUDGE if self.answered else Next.WAIT
