"""Text that others have written, made safe for a terminal. Pure.

Names, reasons and a kernel's output come from users' programs; a terminal obeys escape sequences
(ECMA-48), which may hide, overwrite or answer. Colours may stay where the caller says so.
"""

from __future__ import annotations

import re

#: Control sequences, strings (OSC and its like, up to their end) and two-byte escapes.
_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.DOTALL,
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: Marks that turn the direction of what follows (Unicode UAX 9).
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """One line without anything that a terminal would obey."""
    return _DIRECTION.sub("", " ".join(safe(str(text)).split()))


def safe(text: str, *, colours: bool = False) -> str:
    """Lines and tabs stay, a carriage return overwrites its line as on a terminal, colours stay
    if ``colours``; nothing else of what a terminal obeys does."""

    def keep(match: re.Match[str]) -> str:
        return match[0] if colours and _COLOUR.fullmatch(match[0]) else ""

    text = _ESCAPE.sub(keep, text.replace("\r\n", "\n"))
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    if not colours:
        return "\n".join(_CONTROL.sub("", line) for line in lines)
    return "\n".join(
        "".join(
            part if _COLOUR.fullmatch(part) else _CONTROL.sub("", part)
            for part in re.split(r"(\x1b\[[0-9;:]*m)", line)
        )
        for line in lines
    )


def size(count: int | None) -> str:
    """Bytes as ``12 MB``; ``-`` for none."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
