"""From the beginning of an id to the one thing that is meant. Pure."""

from __future__ import annotations

from ..display import ids
from .exits import NotNamed


def known_id(text: str, known: set[str], what: str) -> str:
    """The one of ``known`` that ``text`` is, or begins. Raises NotNamed, which says the others."""
    try:
        return ids.find(text, known)
    except ids.NoSuchId:
        some = ", ".join(sorted(known)[:5])
        there = f"; there are {some}{' …' if len(known) > 5 else ''}" if known else ""
        raise NotNamed(f"there is no {what} whose id begins with {text!r}{there}") from None
    except ids.AmbiguousId as error:
        raise NotNamed(f"{text!r} is the beginning of several: {error}") from None
