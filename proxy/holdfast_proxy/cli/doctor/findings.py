"""What a check found, and what the whole of it means. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..access.exits import Exit


class Level(Enum):
    """A problem takes something away now; a warning will, or may."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """``subject``: what was looked at; ``todo``: what to do, for all but what is well."""

    level: Level
    subject: str
    text: str
    todo: str = ""

    def document(self) -> dict[str, Any]:
        return {
            "level": self.level.value,
            "subject": self.subject,
            "text": self.text,
            "todo": self.todo or None,
        }


def ok(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


def note(subject: str, text: str, todo: str = "") -> Finding:
    return Finding(Level.NOTE, subject, text, todo)


def warning(subject: str, text: str, todo: str) -> Finding:
    return Finding(Level.WARNING, subject, text, todo)


def problem(subject: str, text: str, todo: str) -> Finding:
    return Finding(Level.PROBLEM, subject, text, todo)


def exit_of(findings: Sequence[Finding], *, answered: bool) -> Exit:
    """``answered``: some proxy did. Warnings alone are no reason to wake anybody."""
    if not answered:
        return Exit.UNREACHABLE
    if any(finding.level is Level.PROBLEM for finding in findings):
        return Exit.DEGRADED
    return Exit.OK
