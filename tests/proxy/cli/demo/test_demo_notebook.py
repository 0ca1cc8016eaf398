"""The demo's notebook and what its records make of messages."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from holdfast_proxy.cli.demo.notebook import (
    LINE,
    CellOutputs,
    NotebookCell,
    Role,
    build_cells,
    count_runs,
    document,
)
from holdfast_proxy.cli.demo.record import CellRecord
from support.demo_run import message


def steps_cell(number: int = 1, lines: int = 3) -> NotebookCell:
    return NotebookCell(role=Role.STEPS, source="", number=number, lines=lines)


def test_the_notebook_is_valid_and_lasts_as_long_as_asked(tmp_path: Path) -> None:
    cells = build_cells(seconds=60, side_file=tmp_path / "it's here.txt")
    nbformat.validate(nbformat.from_dict(document(cells)))
    printing = [cell for cell in cells if cell.role is Role.STEPS]
    assert [cell.number for cell in printing] == list(range(1, 13))
    assert sum(cell.lines for cell in printing) == 6000
    for cell in cells:
        if cell.role is not Role.TEXT:
            compile(cell.source, "cell", "exec")


def test_its_cells_do_what_the_verdict_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = build_cells(seconds=6, side_file=tmp_path / "runs.txt")
    memory: dict[str, object] = {}
    exec(next(cell.source for cell in cells if cell.role is Role.SETUP), memory)  # noqa: S102 - our own cells
    exec("estimate(2, 3)", memory)  # noqa: S102 - the same
    found = [LINE.match(line) for line in capsys.readouterr().out.splitlines()]
    assert [match and match.groups() for match in found] == [("2", "1"), ("2", "2"), ("2", "3")]
    assert count_runs((tmp_path / "runs.txt").read_text()) == {2: 1}
    assert len(memory["estimates"]) == 3  # type: ignore[arg-type]  # exec knows no types


def test_runs_are_counted_per_cell() -> None:
    assert count_runs("1\n2\n2\n11\n") == {1: 1, 2: 2, 11: 1}
    assert count_runs("") == {}


def test_lines_are_read_from_the_joined_stream() -> None:
    record = CellRecord(steps_cell(7))
    for at, text in enumerate(["cell 7, line 1: x\ncell 7, li", "ne 2: y", "\nnoise\n", "cell 7"]):
        record.take(message("stream", {"name": "stdout", "text": text}), float(at))
    assert (record.lines, record.times) == ([1, 2], [0.0, 2.0])
    record.take(message("stream", {"name": "stderr", "text": "cell 7, line 3: no\n"}), 9.0)
    record.take(message("stream", {"name": "stdout", "text": "cell 8, line 3: other\n"}), 9.0)
    assert record.outcome().strange == 0
    record.take(message("stream", {"name": "stdout", "text": "cell 8, line 4: other\n"}), 9.0)
    assert (record.lines, record.outcome().strange) == ([1, 2], 1)


def test_done_needs_reply_and_idle() -> None:
    record = CellRecord(steps_cell())
    record.take(message("status", {"execution_state": "busy"}), 0.0)
    record.take(message("execute_reply", {"status": "ok", "execution_count": 4}, "shell"), 0.0)
    assert not record.done
    record.take(message("status", {"execution_state": "idle"}), 0.0)
    assert record.done


def test_outputs_become_a_valid_notebook(tmp_path: Path) -> None:
    cells = build_cells(seconds=6, side_file=tmp_path / "runs.txt")
    record = CellRecord(cells[-1])
    record.take(message("stream", {"name": "stdout", "text": "steps in memory: "}), 0.0)
    record.take(message("stream", {"name": "stdout", "text": "600\n"}), 0.0)
    record.take(message("stream", {"name": "stderr", "text": "careful\n"}), 0.0)
    picture = {"data": {"image/svg+xml": "<svg/>"}, "metadata": {}, "transient": {}}
    record.take(message("display_data", picture), 0.0)
    error = {"ename": "E", "evalue": "v", "traceback": ["t"]}
    record.take(message("error", error), 0.0)
    record.take(message("execute_reply", {"status": "error", "execution_count": 9}, "shell"), 0.0)
    written = document(cells, {len(cells) - 1: record.outputs(), 1: CellOutputs((), 1)})
    nbformat.validate(nbformat.from_dict(written))
    last = written["cells"][-1]
    assert [output["output_type"] for output in last["outputs"]] == [
        "stream", "stream", "display_data", "error",
    ]  # fmt: skip
    assert last["outputs"][0]["text"] == "steps in memory: 600\n"
    assert (last["execution_count"], record.steps) == (9, 600)
