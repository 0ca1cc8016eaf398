"""Sessions in a dictionary: the ``Shelf`` of a ``FakeCluster``."""

from __future__ import annotations

import uuid
from dataclasses import asdict

from holdfast_proxy.errors import NotFound, ProxyError
from holdfast_proxy.sessions.shelf import Draft, Session, Shelf


class FakeShelf(Shelf):
    """Keeps the contract for one process. ``fail``: what every call raises."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.fail: ProxyError | None = None
        self._revision = 0

    async def all(self, user: str | None) -> list[Session]:
        self._check()
        return [self.sessions[n] for n in sorted(self.sessions) if self._visible(n, user)]

    async def get(self, session_id: str, user: str | None) -> Session:
        self._check()
        if session_id not in self.sessions or not self._visible(session_id, user):
            raise NotFound(f"Session not found: {session_id}", reason="no_such_session")
        return self.sessions[session_id]

    async def create(self, draft: Draft) -> tuple[Session, bool]:
        self._check()
        for session in self.sessions.values():
            if (session.user, session.path) == (draft.user, draft.path):
                return session, False
        return self._put(str(uuid.uuid4()), draft), True

    async def replace(self, session: Session, draft: Draft) -> Session | None:
        self._check()
        if self.sessions.get(session.id) != session:
            return None
        return self._put(session.id, draft)

    async def remove(self, session: Session) -> None:
        self._check()
        if self.sessions.get(session.id) == session:
            del self.sessions[session.id]

    def _put(self, name: str, draft: Draft) -> Session:
        self._revision += 1
        fields = {key: asdict(draft)[key] for key in ("user", "path", "name", "kind", "kernel_id")}
        self.sessions[name] = Session(id=name, revision=self._revision, **fields)
        return self.sessions[name]

    def _visible(self, name: str, user: str | None) -> bool:
        return user in (None, self.sessions[name].user)

    def _check(self) -> None:
        if self.fail is not None:
            raise self.fail
