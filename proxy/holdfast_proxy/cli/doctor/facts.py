"""What was found out before it is judged: plain values, gathered by ``gather``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One certificate. ``trusted``: None where it was not verified (a file, a pinned one)."""

    subject: str
    not_before: datetime
    not_after: datetime
    trusted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyFacts:
    """One proxy as this machine reaches it. ``error``: why it did not answer; ``skew``: seconds
    by which its clock is ahead of this machine's."""

    url: str
    expected_id: str | None = None
    state: Mapping[str, Any] | None = None
    error: str | None = None
    refused: bool = False
    round_trip: float = 0.0
    skew: float | None = None
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A file that should be ``private`` (0600 or stricter), or a directory (0700)."""

    path: Path
    mode: int | None
    directory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFacts:
    """A configuration file: ``error`` when a proxy would refuse it."""

    path: Path
    error: str | None = None
    certificates: Sequence[Certificate] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookFacts:
    """``status`` 0: nobody answered, ``error`` says why. ``answer``: its JSON object."""

    url: str
    status: int
    answer: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """``missing``: by extra, the distributions that it needs and that are not here."""

    version: str
    python: str
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
