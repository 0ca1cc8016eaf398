"""The states of both ends and every transition between them, as data.

The tables are the specification: the machines look their moves up here, the documentation
draws them, and tests walk them. An event without a row is InvalidState.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from ..errors import InvalidState


class ClientState(Enum):
    IDLE = "idle"  # never connected
    RESUMING = "resuming"  # RESUME is on its way
    LIVE = "live"  # RESUMED has come
    DOWN = "down"  # a connection was lost; another may follow
    CLOSED = "closed"  # the keeper said that none may follow


class ClientEvent(Enum):
    CONNECT = "connect"
    RESUMED = "resumed"
    LOST = "lost"
    BYE = "bye"
    BYE_FOR_GOOD = "bye for good"


CLIENT_TRANSITIONS: Final[Mapping[tuple[ClientState, ClientEvent], ClientState]] = {
    (ClientState.IDLE, ClientEvent.CONNECT): ClientState.RESUMING,
    (ClientState.IDLE, ClientEvent.LOST): ClientState.IDLE,
    (ClientState.RESUMING, ClientEvent.RESUMED): ClientState.LIVE,
    (ClientState.RESUMING, ClientEvent.LOST): ClientState.DOWN,
    (ClientState.RESUMING, ClientEvent.BYE): ClientState.DOWN,
    (ClientState.RESUMING, ClientEvent.BYE_FOR_GOOD): ClientState.CLOSED,
    (ClientState.LIVE, ClientEvent.LOST): ClientState.DOWN,
    (ClientState.LIVE, ClientEvent.BYE): ClientState.DOWN,
    (ClientState.LIVE, ClientEvent.BYE_FOR_GOOD): ClientState.CLOSED,
    (ClientState.DOWN, ClientEvent.CONNECT): ClientState.RESUMING,
    (ClientState.DOWN, ClientEvent.LOST): ClientState.DOWN,
    (ClientState.CLOSED, ClientEvent.LOST): ClientState.CLOSED,
}


class KeeperState(Enum):
    DETACHED = "detached"
    ATTACHED = "attached"


class KeeperEvent(Enum):
    ATTACH = "attach"
    DETACH = "detach"


KEEPER_TRANSITIONS: Final[Mapping[tuple[KeeperState, KeeperEvent], KeeperState]] = {
    (KeeperState.DETACHED, KeeperEvent.ATTACH): KeeperState.ATTACHED,
    # a newer connection takes the session over from one that has not been noticed dead yet
    (KeeperState.ATTACHED, KeeperEvent.ATTACH): KeeperState.ATTACHED,
    (KeeperState.ATTACHED, KeeperEvent.DETACH): KeeperState.DETACHED,
    (KeeperState.DETACHED, KeeperEvent.DETACH): KeeperState.DETACHED,
}


def next_client_state(state: ClientState, event: ClientEvent) -> ClientState:
    """The state after ``event``. Raises InvalidState when the table has no such row."""
    try:
        return CLIENT_TRANSITIONS[state, event]
    except KeyError:
        raise InvalidState(f"{event.value!r} is not possible while {state.value}") from None
