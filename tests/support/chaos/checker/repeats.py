"""Nothing comes twice: through the shim never, to a plain client only what a reconnect repeats.

A plain client cannot acknowledge. After a reconnect it is given again what was not proven: the
last messages that it had, in their old order, before anything new, and once.
"""

from __future__ import annotations

from collections.abc import Iterator

from support.chaos.history import Opened, Received

from .story import Session, Story
from .verdict import Violation


def check_repeats(story: Story) -> Iterator[Violation]:
    for session in story.sessions.values():
        if session.client == "shim":
            yield from _never(story, session)
        else:
            yield from _after_reconnects_only(story, session)


def repeated(session: Session) -> int:
    """How many messages came more than once."""
    messages = session.received
    return len(messages) - len({message.msg_id for message in messages})


def _never(story: Story, session: Session) -> Iterator[Violation]:
    seen: set[str] = set()
    for message in session.received:
        if message.msg_id in seen:
            text = f"a {message.kind} came twice to session {session.name[:6]} through the shim"
            yield Violation(story.when(message.at), "repeated", text)
        seen.add(message.msg_id)


def _after_reconnects_only(story: Story, session: Session) -> Iterator[Violation]:
    place: dict[str, int] = {}
    last = -1  # place of the last repeated message of this connection
    repeats = False  # whether this connection may still repeat something
    for event in session.events:
        if isinstance(event, Opened):
            last, repeats = -1, bool(place)
        elif isinstance(event, Received):
            before = place.get(event.msg_id)
            if before is None:
                place[event.msg_id] = len(place)
                repeats = False
            elif not repeats or before <= last:
                text = f"a {event.kind} came again to session {session.name[:6]} "
                text += "after something newer" if not repeats else "out of its order"
                yield Violation(story.when(event.at), "repeated", text)
            else:
                last = before
