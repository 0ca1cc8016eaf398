"""What a checker says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """``rule`` is the promise that was broken, in one word; ``at`` when, in seconds of the run."""

    at: float
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:8.2f} s  {self.rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``figures`` are counts and times, in the order in which they are shown."""

    violations: tuple[Violation, ...]
    figures: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations
