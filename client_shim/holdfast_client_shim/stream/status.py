"""How one stream is, in words for people: what happened to it decides, and time.

Pure; ``now`` is seconds of one steady clock. It must not know who is told (``monitor``), nor
how a break is mended (``lifeline``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

#: Seconds without an answer of any gateway until they count as unreachable.
SILENT_FOR: Final = 5.0
#: Seconds for which gateways say that they cannot reach the kernel until we say so too: when
#: one takes over from another they say it in passing.
REFUSED_FOR: Final = 1.0
#: A break shorter than this many seconds is not worth a word while it lasts.
UNNOTICED: Final = 0.15


class StreamState(Enum):
    CONNECTED = "connected"
    RESUMING = "resuming"  # the connection is lost and is being dialled again
    WAITING = "waiting"  # a gateway has us, and the kernel is not ready
    UNREACHABLE = "unreachable"  # no gateway, or none that can reach the kernel
    GONE = "gone"  # no connection will come any more


@dataclass(frozen=True, slots=True)
class Resumption:
    """A break that is over: how long it was, and the messages that came again or never will."""

    seconds: float
    recovered: int = 0
    lost: int = 0

    def and_then(self, later: Resumption) -> Resumption:
        """Two breaks of which nobody was told, as one."""
        return Resumption(
            self.seconds + later.seconds,
            self.recovered + later.recovered,
            self.lost + later.lost,
        )


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One moment's status. ``since``: when the state began, on the clock of ``now``."""

    state: StreamState
    since: float
    reason: str = ""
    gateway: str = ""
    resumed: Resumption | None = None


class StatusTracker:
    """Takes what happens to a stream; ``at`` says what that amounts to.

    Invariant: a break has one beginning: it lasts until ``live`` or ``gone``, however many
    connections were tried meanwhile, and only what was live before can have one.
    """

    def __init__(self, now: float) -> None:
        self._began = now
        self._broken: float | None = None
        self._was_live = False
        self._state = StreamState.RESUMING
        self._since = now
        self._gateway = ""
        self._reason = ""
        self._silent: float | None = None
        self._refused: float | None = None
        self._resumed: Resumption | None = None

    def __repr__(self) -> str:
        return f"<StatusTracker {self._state.value} {self._reason!r} resumed={self._resumed}>"

    def interrupted(self, now: float) -> None:
        """It was live in a process that is gone: its first connection ends a break."""
        self._was_live, self._broken = True, now

    def dialling(self, now: float) -> None:
        """A connection is wanted and there is none. Nothing new when that is known."""
        if self._state in (StreamState.CONNECTED, StreamState.GONE):
            self._enter(StreamState.RESUMING, now)
            self._gateway = ""
            self._began = now
            if self._was_live:
                self._broken = now

    def rested(self) -> None:
        """Nobody wanted it any more, and it was let go: that is no break."""
        self._was_live, self._broken, self._resumed = False, None, None

    def no_answer(self, now: float, error: str) -> None:
        """No gateway answered at all."""
        self._back_to_resuming(now)
        if self._silent is None:
            # nobody has answered since the break began, or since the last answer
            self._silent = self._since if self._refused is None else now
        self._refused = None
        self._reason = f"no gateway answers: {_in_words(error)}"

    def refused(self, now: float, said: str, *, final: bool) -> None:
        """Gateways answered and gave no connection. ``final``: waiting will not help."""
        self._silent = None
        if self._refused is None:
            self._refused = now - REFUSED_FOR if final else now
        self._back_to_resuming(now)
        self._reason = said

    def opened(self, now: float, gateway: str) -> None:
        """A gateway took the connection; whether the kernel is there is not known yet."""
        self._silent = self._refused = None
        self._gateway = gateway
        self._enter(StreamState.WAITING, now)
        self._reason = "the kernel is not ready yet"

    def explained(self, now: float, reason: str, *, reachable: bool) -> None:
        """What the gateway says about a kernel that is not ready."""
        if self._state in (StreamState.WAITING, StreamState.UNREACHABLE):
            state = StreamState.WAITING if reachable else StreamState.UNREACHABLE
            if state is not self._state:
                self._enter(state, now)
            self._reason = reason

    def live(self, now: float, *, note: str = "", can_replay: bool = True) -> None:
        """It works. ``note``: what is to be said although all is well again."""
        broken, self._broken = self._broken, None
        self._silent = self._refused = None
        self._enter(StreamState.CONNECTED, now)
        self._reason = note if broken is not None else ""
        if self._was_live and broken is not None and can_replay:
            fresh = Resumption(now - broken)
            self._resumed = fresh if self._resumed is None else self._resumed.and_then(fresh)
        self._was_live = True

    def counted(self, *, recovered: int = 0, lost: int = 0) -> None:
        """Messages that belong to the break that is over."""
        if self._resumed is not None:
            self._resumed = self._resumed.and_then(Resumption(0.0, recovered, lost))

    def gone(self, now: float, reason: str) -> None:
        """No connection will come any more."""
        self._enter(StreamState.GONE, now)
        self._reason, self._broken = reason, None

    def told(self) -> None:
        """The status was published; a break that it told of is not told again."""
        if self._state is StreamState.CONNECTED:
            self._resumed = None

    def at(self, now: float) -> StreamStatus:
        """The status at ``now``."""
        state, since = self._state, self._since
        if state is StreamState.RESUMING:
            for begin, patience in ((self._silent, SILENT_FOR), (self._refused, REFUSED_FOR)):
                if begin is not None and now - begin >= patience:
                    state, since = StreamState.UNREACHABLE, begin + patience
        reason = self._reason
        if state is StreamState.RESUMING and not reason:
            reason = "the connection broke" if self._broken is not None else "connecting"
        resumed = self._resumed if state is StreamState.CONNECTED else None
        return StreamStatus(state, since, reason, self._gateway, resumed)

    def worth_telling_at(self) -> float:
        """From when on the status is to be published: a short break is told of afterwards."""
        if self._state in (StreamState.CONNECTED, StreamState.GONE):
            return self._since
        begin = self._broken if self._broken is not None else self._began
        if self._state is StreamState.WAITING:
            begin = self._since  # a keeper answers at once if it is there
        return begin + UNNOTICED

    def next_change(self, now: float) -> float | None:
        """When ``at`` will say something else although nothing happens; None: never."""
        if self._state is not StreamState.RESUMING:
            return None
        times = [
            begin + patience
            for begin, patience in ((self._silent, SILENT_FOR), (self._refused, REFUSED_FOR))
            if begin is not None and begin + patience > now
        ]
        return min(times, default=None)

    def _back_to_resuming(self, now: float) -> None:
        if self._state is not StreamState.RESUMING and self._state is not StreamState.GONE:
            self._enter(StreamState.RESUMING, now)
            self._gateway = ""

    def _enter(self, state: StreamState, now: float) -> None:
        if state is not self._state or state is StreamState.CONNECTED:
            self._since = now
        self._state, self._reason = state, ""


def _in_words(error: str) -> str:
    """What an analyst can read of a socket's error; the log has it in full."""
    if "[Errno 111]" in error or "Connect call failed" in error:
        return "connection refused"
    return error
