"""The code blocks of a page. Pure.

The words after a fence's language say where and how: `sh node-1 node-2` on both machines, `stays`
for what runs until it is stopped, `exits=3` for another exit code than 0, `toml node-1 proxy.toml`
for a file, `python cell` for a notebook's cell. `text` is what something prints, and is not run. A
block that says none of these is a mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\S*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MACHINE = re.compile(r"node-\d")


@dataclass(frozen=True)
class Block:
    """One block. ``machines`` is empty where a page has only one."""

    language: str
    text: str
    machines: tuple[str, ...] = ()
    stays: bool = False
    exits: int = 0
    file: str | None = None

    @property
    def only_looks(self) -> bool:
        """Whether a person who sees that something is not there yet would just look again."""
        commands = [line for line in self.text.splitlines() if line]
        looking = (".", "export", "holdfast list", "holdfast history")
        return any("holdfast" in line for line in commands) and all(
            line.startswith(looking) for line in commands
        )


def blocks(page: Path) -> list[Block]:
    """All of them, in order. Raises ValueError for one that cannot be run."""
    return [_block(*found) for found in _FENCE.findall(page.read_text()) if found[0] != "text"]


def _block(language: str, words: str, text: str) -> Block:
    said = words.split()
    machines = tuple(word for word in said if _MACHINE.fullmatch(word))
    rest = [word for word in said if word not in machines]
    if language == "sh":
        exits = [int(word.removeprefix("exits=")) for word in rest if word.startswith("exits=")]
        if all(word == "stays" or word.startswith("exits=") for word in rest):
            exit_code = exits[0] if exits else 0
            return Block("sh", text, machines, stays="stays" in rest, exits=exit_code)
    if language == "python" and rest == ["cell"]:
        return Block("python", text)
    if language == "toml" and machines and len(rest) == 1:
        return Block("toml", text, machines, file=rest[0])
    raise ValueError(f"a block that no test can run: {language} {words}")
