"""A run of `holdfast demo` in memory: its cells' messages, and the verdict that they give."""

from __future__ import annotations

from holdfast_protocol.jupyter import Message
from holdfast_proxy.cli.demo.notebook import NotebookCell, Role
from holdfast_proxy.cli.demo.record import CellRecord
from holdfast_proxy.cli.demo.verdict import Kill, Spell, Verdict, judge


def message(msg_type: str, content: dict[str, object], channel: str = "iopub") -> Message:
    return Message.from_dicts(channel=channel, header={"msg_type": msg_type}, content=content)


def line_text(cell: int, line: int) -> str:
    return f"cell {cell}, line {line}: pi is about 3.14000\n"


class Run:
    """A run of a few cells that went perfectly, until a test breaks something of it.

    ``streams[cell]``: the texts that came, one message each; ``runs``: the side file's counts.
    """

    def __init__(self, cells: int = 3, lines: int = 4) -> None:
        self.lines = lines
        numbers = range(1, cells + 1)
        self.streams = {n: [line_text(n, line) for line in range(1, lines + 1)] for n in numbers}
        self.ends = {n: [("execute_reply", "ok"), ("status", "idle")] for n in numbers}
        self.runs = dict.fromkeys(numbers, 1)
        self.kills = [Kill(0.95, "proxy-1")]
        self.steps: int | None = cells * lines
        self.interrupted = False
        self.cut: set[int] = set()
        self.trouble = ""

    def verdict(self) -> Verdict:
        records = [self._record(number) for number in self.streams]
        times = sorted(at for record in records for at in record.times)
        return judge(
            [record.outcome() for record in records],
            runs=self.runs,
            kills=self.kills,
            spells=[Spell(tuple(times))],
            steps=self.steps,
            interrupted=self.interrupted,
            trouble=self.trouble,
        )

    def _record(self, number: int) -> CellRecord:
        cell = NotebookCell(role=Role.STEPS, source="", number=number, lines=self.lines)
        record = CellRecord(cell, cut=number in self.cut)
        began = number * self.lines * 0.1
        for n, text in enumerate(self.streams[number]):
            record.take(message("stream", {"name": "stdout", "text": text}), began + n * 0.1)
        for kind, value in self.ends[number]:
            if kind == "status":
                record.take(message("status", {"execution_state": value}), began)
            else:
                record.take(message(kind, {"status": value}, "shell"), began)
        return record
