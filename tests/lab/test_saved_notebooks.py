"""The comparison of saved notebooks: what it lets pass and what never."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from support.lab.analysis import notebook
from support.lab.saved import compare

PLOT = {"output_type": "display_data", "data": {"image/png": "aGk="}, "metadata": {}}


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text.splitlines(keepends=True)}


def book(*outputs: dict[str, Any]) -> dict[str, Any]:
    made = notebook({"one": "1", "two": "2"})
    made["cells"][0]["outputs"] = list(outputs)
    return made


EXPECTED = book(stream("a\nb\nc\nd\n"), PLOT)


def test_the_same_is_the_same() -> None:
    comparison = compare(EXPECTED, copy.deepcopy(EXPECTED))
    assert (comparison.differences, comparison.doubled) == ([], 0)


@pytest.mark.parametrize(
    ("outputs", "doubled"),
    [
        ((stream("a\nb\nb\nc\nd\n"), PLOT), 1),
        ((stream("a\nb\nc\na\nb\nc\nd\n"), PLOT), 3),
        ((stream("a\nb\nb\nc\nc\nd\n"), PLOT), 2),
        ((stream("a\nb\nc\na\nb\na\nb\nc\nd\n"), PLOT), 5),
        ((stream("a\nb\nc\nd\nc\nd\n"), PLOT), 2),
        ((stream("a\nb\nc\nd\n"), PLOT, PLOT), 1),
        ((stream("a\nb\nc\nd\n"), PLOT, stream("c\nd\n"), PLOT), 3),
    ],
)
def test_what_came_again_is_counted(outputs: tuple[dict[str, Any], ...], doubled: int) -> None:
    comparison = compare(EXPECTED, book(*outputs))
    assert comparison.differences == []
    assert comparison.doubles == {"one": doubled}


@pytest.mark.parametrize(
    "outputs",
    [
        (stream("a\nb\nd\n"), PLOT),  # lost
        (stream("a\nc\nb\nd\n"), PLOT),  # out of order
        (stream("a\nb\nc\na\nc\nd\n"), PLOT),  # came again with a hole
        (stream("a\nb\nc\nd\na\n"), PLOT),  # came again and broke off
        (stream("a\nb\nc\nd\n"), PLOT, stream("c\n")),
        (stream("a\nb\nc\nd\n"),),
        (stream("a\nb\nx\nc\nd\n"), PLOT),
        (stream("a\nb\nc\nd\n", "stderr"), PLOT),
        (),
    ],
)
def test_what_is_wrong_is_told(outputs: tuple[dict[str, Any], ...]) -> None:
    assert compare(EXPECTED, book(*outputs)).differences


def test_counts_sources_and_metadata_are_compared_too() -> None:
    for key, value in (("execution_count", 3), ("source", "other"), ("metadata", {"a": 1})):
        changed = copy.deepcopy(EXPECTED)
        changed["cells"][1][key] = value
        assert compare(EXPECTED, changed).differences
    changed = copy.deepcopy(EXPECTED)
    changed["metadata"]["language_info"] = {"name": "R"}
    assert compare(EXPECTED, changed).differences
    del changed["cells"][1]
    assert compare(EXPECTED, changed).differences
