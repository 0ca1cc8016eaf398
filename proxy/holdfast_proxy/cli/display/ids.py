"""Long ids, shortened so that none is taken for another, and found again by their beginning.

Pure. Eight characters of a UUID are enough for people; more are shown only where two begin alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SHORTEST = 8


class NoSuchId(Exception):
    """Nothing begins so."""


class AmbiguousId(Exception):
    """Several begin so: ``candidates``."""

    def __init__(self, candidates: Sequence[str]) -> None:
        super().__init__(", ".join(candidates))
        self.candidates = candidates


def shorten(ids: Iterable[str], *, at_least: int = SHORTEST) -> dict[str, str]:
    """For each id its shortest beginning that no other one has, of ``at_least`` characters."""
    ordered = sorted(set(ids))
    short = {}
    for place, name in enumerate(ordered):
        neighbours = ordered[max(0, place - 1) : place] + ordered[place + 1 : place + 2]
        length = max([at_least - 1, *(_common(name, other) for other in neighbours)]) + 1
        # Not up to a hyphen: a double click and an eye take it for the end of a sentence.
        short[name] = name[: length + 1] if name[length - 1 : length] == "-" else name[:length]
    return short


def find(text: str, ids: Iterable[str]) -> str:
    """The id that ``text`` is, or is the beginning of. Raises NoSuchId, AmbiguousId."""
    wanted, known = text.strip().lower(), sorted(set(ids))
    for name in known:
        if name.lower() == wanted:
            return name
    found = [name for name in known if wanted and name.lower().startswith(wanted)]
    if not found:
        raise NoSuchId(text)
    if len(found) > 1:
        raise AmbiguousId(found)
    return found[0]


def _common(first: str, second: str) -> int:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length
