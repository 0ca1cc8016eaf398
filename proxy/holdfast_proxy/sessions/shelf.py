"""Where sessions are kept, as a contract: values in, values out, and three rules.

``ownership/sessions`` keeps it on etcd; tests of the edge put a dictionary there. Must not know
kernels or HTTP. The rules, which ``sessions.desk`` builds on:

- *one session for each user and path*, also when two proxies open it in the same moment;
- a change is made to what was read, or not at all (``replace``, ``remove``);
- a session that is not there is proven absent, or the answer is Unavailable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

#: Seconds for which a session may be without a kernel: a start goes on that long (it waits for
#: takeovers, an image, a queue) and its client may ask again.
START_GRACE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A session that is to be. ``kind`` is Jupyter's ``type``: notebook, console, file …"""

    user: str
    path: str
    name: str
    kind: str
    kernel_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Draft):
    """A session that is. ``revision`` changes with each change of it; ``age``: seconds since it
    got its ``kernel_id``."""

    id: str
    revision: int
    age: float = 0.0


class Shelf(ABC):
    """All methods raise ``errors.Unavailable`` when the store cannot be asked."""

    @abstractmethod
    async def all(self, user: str | None) -> list[Session]:
        """The user's sessions (None: everybody's), whole and in the order of their ids.

        From the cache when the store does not answer, as the list of kernels is.
        """

    @abstractmethod
    async def get(self, session_id: str, user: str | None) -> Session:
        """Raises NotFound: proven absent, or another user's, which looks the same."""

    @abstractmethod
    async def create(self, draft: Draft) -> tuple[Session, bool]:
        """The session of the draft's user and path, and whether it is the draft."""

    @abstractmethod
    async def replace(self, session: Session, draft: Draft) -> Session | None:
        """``session`` changed to ``draft``; None when it was changed or deleted meanwhile."""

    @abstractmethod
    async def remove(self, session: Session) -> None:
        """Delete it unless it has changed since it was read."""
