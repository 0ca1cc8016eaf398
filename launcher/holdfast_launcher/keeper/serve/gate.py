"""Client messages on their way to a kernel that may not take any just now. Pure.

Safety rule (DESIGN promise 1): what was accepted for one kernel incarnation is never given to
the next. So a message is either given at once, or held because no incarnation takes messages;
``open`` empties what is held into the new incarnation, in order, before anything newer. There is
no moment at which a message could be queued behind a kernel that ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from holdfast_protocol.jupyter import Message


class Verdict(Enum):
    """What is to be done with a message that was just accepted."""

    GIVE = "give"  # to the kernel, now
    HELD = "held"  # kept for the next incarnation
    REFUSE_FULL = "refuse_full"  # too much is held: answer it with an error
    REFUSE_DEAD = "refuse_dead"  # no incarnation will come by itself: answer it with an error


class GateState(Enum):
    WAITING = "waiting"  # no incarnation takes messages, one is expected
    OPEN = "open"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Held:
    session_id: str
    message: Message
    size: int


class Gate:
    """Between the sessions and the kernel. ``limit`` in bytes of messages held."""

    def __init__(self, limit: int) -> None:
        self.state = GateState.WAITING
        self._limit = limit
        self._held: deque[Held] = deque()
        self._size = 0

    def __repr__(self) -> str:
        return f"<Gate {self.state.value} held={len(self._held)} ({self._size} bytes)>"

    @property
    def held_bytes(self) -> int:
        return self._size

    def submit(self, session_id: str, message: Message, size: int) -> Verdict:
        """Decide about one accepted message; keeps it when it is HELD."""
        if self.state is GateState.OPEN:
            return Verdict.GIVE
        if self.state is GateState.DEAD:
            return Verdict.REFUSE_DEAD
        if self._size + size > self._limit:
            return Verdict.REFUSE_FULL
        self._held.append(Held(session_id, message, size))
        self._size += size
        return Verdict.HELD

    def open(self, give: Callable[[str, Message], None]) -> None:
        """An incarnation takes messages: give it everything held, in order, then be open."""
        while self._held:
            held = self._held.popleft()
            self._size -= held.size
            give(held.session_id, held.message)
        self.state = GateState.OPEN

    def close(self, *, dead: bool) -> list[Held]:
        """The incarnation ended. When ``dead``, returns what was held: it is to be refused."""
        self.state = GateState.DEAD if dead else GateState.WAITING
        if not dead:
            return []
        refused = list(self._held)
        self._held.clear()
        self._size = 0
        return refused

    def expect(self) -> None:
        """A dead kernel is being started again: hold from now on."""
        if self.state is GateState.DEAD:
            self.state = GateState.WAITING

    def forget_session(self, session_id: str) -> None:
        """Drop what a session that nobody can come back to had waiting."""
        kept = deque(held for held in self._held if held.session_id != session_id)
        self._held, self._size = kept, sum(held.size for held in kept)
