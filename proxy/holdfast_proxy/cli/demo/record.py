"""What came for one execute request: its lines with their times, its replies, its outputs.

It takes parsed messages and a time, whoever read them; it must not know a socket. Lines are read
from the joined text, because a kernel may cut its stream anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from holdfast_protocol.jupyter import Message

from .notebook import LINE, STEPS, CellOutputs, NotebookCell
from .verdict import CellOutcome


@dataclass(slots=True)
class CellRecord:
    """Grows by ``take``. ``times``: when each whole line came, on the caller's clock."""

    cell: NotebookCell
    times: list[float] = field(default_factory=list)
    replies: int = 0
    status: str = ""
    idle: bool = False
    cut: bool = False
    execution_count: int | None = None
    lines: list[int] = field(default_factory=list)
    strange: int = 0
    _rest: str = ""
    _outputs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Both ends came: the reply and idle."""
        return self.replies > 0 and self.idle

    def take(self, message: Message, at: float) -> None:
        """One message that answers this request, arrived ``at``. Raises FrameError."""
        content = message.content_dict()
        if message.msg_type == "stream":
            self._stream(str(content["name"]), str(content["text"]), at)
        elif message.msg_type == "status":
            self.idle = content["execution_state"] == "idle"
        elif message.msg_type == "execute_reply":
            self.replies += 1
            self.status = str(content["status"])
            self.execution_count = content.get("execution_count", self.execution_count)
        elif message.msg_type in _OUTPUTS:
            kept = {key: content[key] for key in _OUTPUTS[message.msg_type] if key in content}
            self._outputs.append({"output_type": message.msg_type, **kept})

    def outcome(self) -> CellOutcome:
        return CellOutcome(
            number=self.cell.number,
            expected=self.cell.lines,
            lines=tuple(self.lines),
            replies=self.replies,
            status=self.status,
            finished=self.done,
            strange=self.strange,
            cut=self.cut,
        )

    def outputs(self) -> CellOutputs:
        return CellOutputs(tuple(self._outputs), self.execution_count)

    @property
    def text(self) -> str:
        """Everything on stdout."""
        return "".join(output["text"] for output in self._outputs if output.get("name") == "stdout")

    @property
    def steps(self) -> int | None:
        """What the last cell says that the kernel remembers."""
        found = STEPS.search(self.text)
        return int(found[1]) if found else None

    def _stream(self, name: str, text: str, at: float) -> None:
        last = self._outputs[-1] if self._outputs else {}
        if last.get("output_type") == "stream" and last["name"] == name:
            last["text"] += text
        else:
            self._outputs.append({"output_type": "stream", "name": name, "text": text})
        if name == "stdout":
            *whole, self._rest = (self._rest + text).split("\n")
            for line in whole:
                self._line(line, at)

    def _line(self, line: str, at: float) -> None:
        found = LINE.match(line)
        if found is None:
            return
        self.times.append(at)
        if int(found[1]) == self.cell.number:
            self.lines.append(int(found[2]))
        else:
            self.strange += 1


#: Message type → what of its content an nbformat output has.
_OUTPUTS = {
    "display_data": ("data", "metadata"),
    "execute_result": ("data", "metadata", "execution_count"),
    "error": ("ename", "evalue", "traceback"),
}
