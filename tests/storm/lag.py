"""How late an event loop is, measured by a timer of its own.

A beat every ``BEAT`` seconds: one that comes late was kept waiting by the loop's other work, or
by the machine, which had no core for the process. The process's own CPU time in the gap tells
the two apart, so each late beat is kept with it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

BEAT: Final = 0.005
#: Beats less late than this are not worth a line.
WORTH_NOTING: Final = 0.01


@dataclass(frozen=True, slots=True)
class LateBeat:
    """One beat, ``late`` seconds after its time, at ``at`` (CLOCK_MONOTONIC); ``cpu`` seconds of
    this thread's time were spent between it and the beat before, ``gc`` of them on garbage."""

    at: float
    late: float
    cpu: float
    gc: float


class LagSampler:
    """Call ``start`` on the loop that is watched; ``beats`` are the late ones since then."""

    def __init__(self, file: Path | None = None) -> None:
        self.beats: list[LateBeat] = []
        self._file = file
        self._collecting = 0.0
        self._collected = 0.0

    def __repr__(self) -> str:
        return f"<LagSampler {len(self.beats)} late, longest {self.longest():.3f} s>"

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due, self._cpu = time.monotonic() + BEAT, time.thread_time()
        self._loop.call_later(BEAT, self._beat)
        gc.callbacks.append(self._on_collection)

    def longest(self, since: float = 0.0) -> float:
        """Seconds of the latest beat since ``since`` (CLOCK_MONOTONIC)."""
        return max((beat.late for beat in self.beats if beat.at >= since), default=0.0)

    def _beat(self) -> None:
        now, cpu = time.monotonic(), time.thread_time()
        late = now - self._due
        if late >= WORTH_NOTING:
            beat = LateBeat(now, late, cpu - self._cpu, self._collected)
            self.beats.append(beat)
            if self._file is not None:
                with self._file.open("a") as file:
                    file.write(json.dumps(asdict(beat)) + "\n")
        self._due, self._cpu, self._collected = time.monotonic() + BEAT, cpu, 0.0
        self._loop.call_later(BEAT, self._beat)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self._collected += time.thread_time() - self._collecting


def read_beats(file: Path, *, since: float) -> list[LateBeat]:
    """The late beats that a process has noted in ``file`` since ``since``."""
    if not file.exists():
        return []
    beats = [LateBeat(**json.loads(line)) for line in file.read_text().splitlines()]
    return [beat for beat in beats if beat.at >= since]
