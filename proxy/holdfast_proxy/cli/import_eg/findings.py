"""What became of each thing that was found: the lines of the report. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """What became of it."""

    TAKEN = "taken"  # the new configuration has it
    NOT_NEEDED = "not needed"  # what it is for does not exist, or is always so
    NO_COUNTERPART = "no counterpart"  # something to decide or to do by hand
    NOT_READ = "not read"  # it could not be understood


@dataclass(frozen=True, slots=True)
class Finding:
    """One setting, kernelspec or file. ``text`` says what became of it; never a secret."""

    source: str
    fate: Fate
    text: str


def lines(findings: list[Finding]) -> list[str]:
    """The report, what needs a person first."""
    order = [Fate.NOT_READ, Fate.NO_COUNTERPART, Fate.TAKEN, Fate.NOT_NEEDED]
    shown = sorted(findings, key=lambda finding: order.index(finding.fate))
    return [f"{finding.fate.value}: {finding.source}: {finding.text}" for finding in shown]
