"""The table at the end of a run, and what is kept of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from support.chaos.archive import HISTORY, SIDE, TRACES
from support.chaos.checker.verdict import Verdict
from support.figures import keep

_SHOWN = 40


def table(verdict: Verdict) -> str:
    """For people."""
    width = max(len(name) for name in verdict.figures) + 2
    lines = [f"{name:<{width}}{value}" for name, value in verdict.figures.items()]
    lines.append(f"{'violations':<{width}}{len(verdict.violations) or 'none'}")
    lines += [f"  {violation}" for violation in verdict.violations[:_SHOWN]]
    if len(verdict.violations) > _SHOWN:
        lines.append(f"  … and {len(verdict.violations) - _SHOWN} more")
    return "\n".join(lines)


def keep_figures(verdict: Verdict) -> None:
    """Beside the figures of the other runs."""
    keep({"figure": "chaos", "violations": len(verdict.violations), **verdict.figures})


def keep_run(directory: Path, name: str) -> Path | None:
    """Copy history and logs to ``$HOLDFAST_ARTEFACTS``; no configuration, which has secrets."""
    folder = os.environ.get("HOLDFAST_ARTEFACTS")
    if not folder:
        return None
    kept = Path(folder) / name
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for path in (directory / HISTORY, directory / SIDE, *directory.glob("*.log")):
        if path.exists():
            shutil.copy(path, kept)
    shutil.copytree(directory / TRACES, kept / TRACES)
    return kept
