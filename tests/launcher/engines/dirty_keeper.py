"""A module whose import leaves a thread behind, as a careless dependency may."""

from __future__ import annotations

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()


def run(config: object, ready_fd: int) -> int:
    raise AssertionError("never forked")
