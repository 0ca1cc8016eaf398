"""A kernel's messages as the text of a session: what was run, what it said. Pure.

From the JSON lines of ``GET /api/kernels/{id}/log``. What only programs need (busy and idle,
comms, replies) is left out unless ``everything`` is asked for; what is missing is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..display.text import plain, safe, size

_IGNORED = frozenset(
    {"comm_open", "comm_msg", "comm_close", "iopub_welcome", "execute_reply", "kernel_info_reply"}
)


class Transcript:
    """Messages in, text out; text of a stream is not torn where it was torn into messages."""

    def __init__(self, *, colours: bool = False, everything: bool = False) -> None:
        self._colours = colours
        self._everything = everything
        self._at_line_start = True
        self.next = 1

    def __repr__(self) -> str:
        return f"<Transcript up to {self.next - 1}>"

    def take(self, line: bytes) -> str:
        """The text for one line of the log; empty for what is not shown."""
        try:
            entry = json.loads(line)
        except ValueError:
            return ""
        if not isinstance(entry, dict):
            return ""
        gap = entry.get("gap")
        if isinstance(gap, dict):
            self.next = int(gap["last"]) + 1
            return self._block(_gap(gap))
        self.next = int(entry.get("seq", 0)) + 1
        kind = str(_mapping(entry.get("header")).get("msg_type", ""))
        if self._everything:
            return self._block(_raw(entry, kind))
        return self._shown(kind, _mapping(entry.get("content")))

    def _shown(self, kind: str, content: Mapping[str, Any]) -> str:
        match kind:
            case "stream":
                return self._flowing(self._safe(_text(content.get("text"))))
            case "execute_input":
                prompt = f"In [{_count(content)}]: "
                return self._block(_prompted(prompt, self._safe(_text(content.get("code")))))
            case "execute_result":
                prompt = f"Out[{_count(content)}]: "
                return self._block(_prompted(prompt, self._safe(_best(content.get("data")))))
            case "display_data" | "update_display_data":
                return self._block(self._safe(_best(content.get("data"))))
            case "error":
                return self._block(self._safe(_traceback(content)))
            case "input_request":
                return self._block(f"(it asks) {self._safe(_text(content.get('prompt')))}")
            case "status":
                return self._status(str(content.get("execution_state", "")))
            case "clear_output":
                return self._block("(it clears what it had shown)")
            case _ if kind in _IGNORED or kind.endswith("_reply"):
                return ""
            case _:
                return self._block(f"({plain(kind)})")

    def _status(self, state: str) -> str:
        if state in ("restarting", "dead"):
            return self._block(f"-- the kernel is {state} --")
        return ""

    def _safe(self, text: str) -> str:
        return safe(text, colours=self._colours)

    def _flowing(self, text: str) -> str:
        if text:
            self._at_line_start = text.endswith("\n")
        return text

    def _block(self, text: str) -> str:
        before = "" if self._at_line_start else "\n"
        self._at_line_start = True
        return f"{before}{text.rstrip(chr(10))}\n"


def _gap(gap: Mapping[str, Any]) -> str:
    first, last = int(gap["first"]), int(gap["last"])
    if first == last:
        return f"-- message {first} is not in the log any more --"
    return f"-- messages {first} to {last} are not in the log any more --"


def _raw(entry: Mapping[str, Any], kind: str) -> str:
    content = plain(json.dumps(entry.get("content"), ensure_ascii=False))
    return f"{entry.get('seq')} {plain(entry.get('channel', ''))} {plain(kind)} {content}"


def _prompted(prompt: str, text: str) -> str:
    return prompt + text.replace("\n", f"\n{' ' * len(prompt)}")


def _best(data: object) -> str:
    """The text of a MIME bundle, or what it holds instead."""
    if not isinstance(data, dict):
        return ""
    if "text/plain" in data:
        text = _text(data["text/plain"])
        others = sorted(set(data) - {"text/plain"})
        return f"{text}  ({', '.join(others)})" if others else text
    told = [f"{name}, {size(len(_text(value)))}" for name, value in sorted(data.items())]
    return f"({'; '.join(told)})"


def _traceback(content: Mapping[str, Any]) -> str:
    lines = content.get("traceback")
    if lines and isinstance(lines, list):
        return "\n".join(_text(line) for line in lines)
    return f"{content.get('ename')}: {content.get('evalue')}"


def _count(content: Mapping[str, Any]) -> str:
    return plain(content.get("execution_count", "")) or " "


def _mapping(value: object) -> Mapping[str, Any]:
    """What a message should have; a kernel may write anything."""
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if isinstance(value, list):  # as notebooks hold it
        return "".join(map(str, value))
    return "" if value is None else str(value)
