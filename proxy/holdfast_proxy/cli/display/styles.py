"""One colour for one meaning, in every table. The words say it too: colour is never alone."""

from __future__ import annotations

from typing import Final

GOOD: Final = "green"
BUSY: Final = "cyan"
CARE: Final = "yellow"
BAD: Final = "bold red"
QUIET: Final = "dim"

WORDS: Final = {
    "ready": GOOD,
    "alive": GOOD,
    "idle": GOOD,
    "ok": GOOD,
    "busy": BUSY,
    "starting": BUSY,
    "restarting": BUSY,
    "draining": CARE,
    "degraded": CARE,
    "deleting": CARE,
    "unknown": CARE,
    "warning": CARE,
    "unreachable": BAD,
    "gone": BAD,
    "dead": BAD,
    "problem": BAD,
    "died": BAD,
    "start failed": BAD,
    "gap": BAD,
    "proxy gone": BAD,
    "launcher gone": BAD,
    "taken over": CARE,
    "proxy draining": CARE,
}
