"""Compares two saved notebooks: the same work, undisturbed and disturbed.

Only what no two runs share is left out: ids of widget models. On the browser's leg output may
come twice (docs/design/promises.md): ``doubles`` of a comparison counts how many pieces did, where
a piece is one line of a stream or one other output. A piece that comes twice must be one of a
series that was there just before, up to the place where it broke off; anything else is a
difference, always.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Comparison:
    """``doubles``: cell id → pieces that came again; ``differences``: sentences."""

    doubles: dict[str, int]
    differences: list[str]

    @property
    def doubled(self) -> int:
        return sum(self.doubles.values())


def load(file: Path) -> dict[str, Any]:
    """A notebook without what differs between any two runs."""
    book: dict[str, Any] = json.loads(file.read_text())
    for cell in book["cells"]:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(_WIDGET)
            if view is not None:
                view["model_id"] = "a model"
    return book


def compare(expected: dict[str, Any], actual: dict[str, Any]) -> Comparison:
    """What ``actual`` has otherwise than ``expected``."""
    differences: list[str] = []
    doubles: dict[str, int] = {}
    differences += _unlike(expected, actual, "cells")
    ids = [cell["id"] for cell in expected["cells"]], [cell["id"] for cell in actual["cells"]]
    if ids[0] != ids[1]:
        return Comparison({}, [*differences, f"cells {ids[1]} instead of {ids[0]}"])
    for one, other in zip(expected["cells"], actual["cells"], strict=True):
        name = one["id"]
        differences += [f"{name}.{sentence}" for sentence in _unlike(one, other, "outputs")]
        again, wrong = _replayed(_pieces(one), _pieces(other))
        differences.extend(f"{name}: {sentence}" for sentence in wrong)
        if again:
            doubles[name] = again
    return Comparison(doubles, differences)


def _unlike(expected: dict[str, Any], actual: dict[str, Any], but: str) -> list[str]:
    return [
        f"{key}: {actual.get(key)!r} instead of {expected.get(key)!r}"
        for key in sorted((expected.keys() | actual.keys()) - {but})
        if expected.get(key) != actual.get(key)
    ]


def _pieces(cell: dict[str, Any]) -> list[str]:
    """A cell's outputs, streams cut into lines."""
    pieces = []
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream":
            text = "".join(output["text"])
            pieces += [f"{output['name']}: {line}" for line in text.splitlines(keepends=True)]
        else:
            pieces.append(json.dumps(output, sort_keys=True))
    return pieces


def _replayed(expected: list[str], actual: list[str]) -> tuple[int, list[str]]:
    """How many pieces came again, and what is wrong besides.

    ``position`` is what comes next, ``reached`` the furthest there was. A step back must go to a
    piece that was there and lead up to ``reached`` without a hole (or to another step back: the
    connection broke again).
    """
    position = reached = again = 0
    for piece in actual:
        if position < len(expected) and piece == expected[position]:
            again += position < reached
            position += 1
            reached = max(reached, position)
            continue
        if piece not in expected[:position]:
            awaited = expected[position] if position < len(expected) else "the end"
            return again, [f"{_short(piece)} where {_short(awaited)} should be"]
        again += 1
        position = expected[:position].index(piece) + 1
    if reached < len(expected):
        return again, [f"{len(expected) - reached} missing from {_short(expected[reached])} on"]
    if position != reached:
        return again, [f"came again and broke off before {_short(expected[position])}"]
    return again, []


def _short(piece: str) -> str:
    return repr(piece if len(piece) <= 80 else f"{piece[:60]}… ({len(piece)} characters)")
