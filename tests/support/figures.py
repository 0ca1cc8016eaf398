"""Figures that a run prints and, when HOLDFAST_ARTEFACTS is set, leaves as JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all values do not exceed (nearest rank)."""
    ranked = sorted(values)
    rank = max(1, -(-len(ranked) * share // 1))
    return ranked[int(rank) - 1]


def report(name: str, seconds: Sequence[float], **more: object) -> dict[str, object]:
    """Print and keep p50, p99 (from 100 values on) and max, in milliseconds."""
    figure: dict[str, object] = {
        "figure": name,
        "count": len(seconds),
        "p50_ms": round(percentile(seconds, 0.5) * 1000, 1),
        "max_ms": round(max(seconds) * 1000, 1),
        **more,
    }
    if len(seconds) >= 100:
        figure["p99_ms"] = round(percentile(seconds, 0.99) * 1000, 1)
    keep(figure)
    return figure


def keep(figure: dict[str, object]) -> None:
    """Print one figure, and append it to the artefacts."""
    line = json.dumps(figure)
    print(f"\nFIGURE {line}")
    folder = os.environ.get("HOLDFAST_ARTEFACTS")
    if folder:
        with (Path(folder) / "figures.jsonl").open("a") as file:
            file.write(line + "\n")
