"""The sums over all keepers that this launcher ever had, which must never go back.

Each keeper counts from zero (``keeper.tally``) and ends one day; a sum over those that live would
fall whenever one does, and Prometheus would take that for a restart and count everything twice.
So what an ended keeper had counted is kept, on disk too: a launcher that is restarted goes on from
the same sums. A keeper's run is named by its log's epoch: one that takes a kernel over counts anew
under another one.

It knows numbers and one small file; it must not know Prometheus or keepers.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from holdfast_launcher.state.statefiles import read_json, write_json

#: Ended runs that are remembered, so that one is not added twice: its directory outlives a
#: launcher that is killed in between.
_REMEMBERED: Final = 1024
#: The file lies where a kernel's own code can write: what it may make us hold is bounded.
_NAMES: Final = 256
_log = structlog.get_logger(__name__)

Counts = Mapping[str, float]


class KeeperTotals:
    """``path``: where the sums of ended keepers are kept; None keeps them in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._ended: dict[str, float] = {}
        self._over: deque[str] = deque(maxlen=_REMEMBERED)
        self._living: dict[str, tuple[str, dict[str, float]]] = {}
        self._recall()

    def __repr__(self) -> str:
        return f"KeeperTotals(living={len(self._living)}, ended={len(self._over)})"

    def observe(self, kernel_id: str, epoch: str | None, counts: Counts) -> None:
        """What the kernel's keeper says now. ``epoch`` None: it counts nothing (an older one)."""
        known = self._living.get(kernel_id)
        if epoch is None or epoch in self._over:
            return
        if known is not None and known[0] != epoch:
            self._end(*known)
            known = None
        before = {} if known is None else known[1]
        # A file that was restored, or read half a second late, must not make a sum fall.
        risen = {
            name: max(count, before.get(name, 0.0))
            for name, count in islice(counts.items(), _NAMES)
            if 0.0 <= count < float("inf")
        }
        self._living[kernel_id] = (epoch, {**before, **risen})

    def close(self, kernel_id: str) -> None:
        """The kernel is gone from this launcher; what its keeper counted stays."""
        known = self._living.pop(kernel_id, None)
        if known is not None:
            self._end(*known)

    def sums(self) -> dict[str, float]:
        """Every name's sum over all keepers, living and ended."""
        total = dict(self._ended)
        for _, counts in self._living.values():
            _add(total, counts)
        return total

    def _end(self, epoch: str, counts: Counts) -> None:
        _add(self._ended, counts)
        self._over.append(epoch)
        if self._path is not None:
            document = {"ended": self._ended, "over": list(self._over)}
            try:
                write_json(self._path, document)
            except OSError as error:  # a full disk: known here for as long as we live
                _log.warning("metrics not kept", error=str(error))

    def _recall(self) -> None:
        document = None if self._path is None else read_json(self._path)
        if document is None:
            return
        ended, over = document.get("ended"), document.get("over")
        if isinstance(ended, dict) and isinstance(over, list):
            with contextlib.suppress(TypeError, ValueError):
                self._ended = {str(k): float(v) for k, v in ended.items()}
                self._over.extend(str(epoch) for epoch in over)


def _add(total: dict[str, float], counts: Counts) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0.0) + count
