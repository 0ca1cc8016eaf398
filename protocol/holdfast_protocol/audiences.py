"""Numbers for the sessions that a log has entries for, so that an entry costs four bytes of it.

Pure; it must not know entries. Rejected: numbers for ever (a log that lives for months sees any
number of page loads).
"""

from __future__ import annotations

from collections import Counter
from typing import Final

#: The number of entries that are for everybody.
EVERYBODY: Final = 0
#: The number of a session that no entry in the log is for; no entry ever has it.
NOBODY: Final = -1


class Audiences:
    """Numbers for session names, as long as entries are there for them; 0 is everybody.

    Invariant: a number is given to another name only when no entry has it any more, so the
    table is no longer than the sessions that the log holds something for.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str | None] = [None]
        self._entries = [0]
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, name: str | None) -> int:
        """The number for one more entry of ``name``."""
        if name is None:
            return EVERYBODY
        number = self._numbers.get(name)
        if number is None:
            number = self._free.pop() if self._free else len(self._names)
            if number == len(self._names):
                self._names.append(name)
                self._entries.append(0)
            self._names[number] = name
            self._numbers[name] = number
        self._entries[number] += 1
        return number

    def number(self, name: str) -> int:
        return self._numbers.get(name, NOBODY)

    def name(self, number: int) -> str | None:
        return self._names[number]

    def release(self, number: int, entries: int) -> None:
        """``entries`` of this number have left the log."""
        if number == EVERYBODY:
            return
        self._entries[number] -= entries
        name = self._names[number]
        if not self._entries[number] and name is not None:
            del self._numbers[name]
            self._names[number] = None
            self._free.append(number)

    def counts(self) -> Counter[int]:
        return Counter({number: count for number, count in enumerate(self._entries) if count})
