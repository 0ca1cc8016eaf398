"""Sessions under ``sessions/<id>`` in etcd: the ``Shelf`` that survives every proxy.

A session's id is made from user, path and a number: the first free number is taken by a
compare-and-swap on the key's absence, so that two proxies that open one path in the same moment
meet on one key. The number is needed because a session keeps its id when its document is renamed.
Any proxy may write: each write compares what was read, so a paused one changes nothing. Must not
know kernels or HTTP.

Rejected: random ids with an index by path (two keys that can disagree), and an owner for each
session (nothing about a session outlives its one write).
"""

from __future__ import annotations

import uuid
from typing import Final

import structlog

from holdfast_protocol.errors import RecordError
from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.records import SessionRecord
from holdfast_proxy.errors import NotFound, Unavailable
from holdfast_proxy.ownership.cache import ClusterView, Entry
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.sessions.shelf import Draft, Session, Shelf
from holdfast_proxy.store.contract import Delete, KeyValue, ModEquals, Put, Store
from holdfast_proxy.store.errors import StoreError, Unknown

_log = structlog.get_logger(__name__)
_TIMEOUT: Final = 2.0
_TRIES: Final = 4
#: Sessions that began with one path and were renamed since. Each keeps its number.
_NUMBERS: Final = 64
_SPACE: Final = uuid.UUID("6f0c1d6e-3d50-4b6f-9e53-0c2b9c8f3a11")


class StoredSessions(Shelf):
    """See ``Shelf``."""

    def __init__(self, *, store: Store, keys: Keys, view: ClusterView, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._view = view
        self._clock = clock

    def __repr__(self) -> str:
        return f"<StoredSessions: {len(self._view.sessions)}>"

    async def all(self, user: str | None) -> list[Session]:
        if not self._view.synced:
            raise Unavailable("this proxy has not read the cluster's sessions yet")
        await self._catch_up()
        found = [self._session(name, entry) for name, entry in sorted(self._view.sessions.items())]
        return [session for session in found if user in (None, session.user)]

    async def get(self, session_id: str, user: str | None) -> Session:
        try:
            entry = await self._view.read(Kind.SESSION, session_id)
        except (StoreError, RecordError) as error:
            entry = self._view.sessions.get(session_id)
            if entry is None:
                raise Unavailable(f"etcd does not say whether it exists: {error}") from error
        if entry is None or user not in (None, entry.record.user):
            raise NotFound(f"Session not found: {session_id}", reason="no_such_session")
        return self._session(session_id, entry)

    async def create(self, draft: Draft) -> tuple[Session, bool]:
        await self._catch_up()
        for name, entry in sorted(self._view.sessions.items()):
            if (entry.record.user, entry.record.path) == (draft.user, draft.path):
                return self._session(name, entry), False
        for number in range(_NUMBERS):
            name = session_id(draft.user, draft.path, number)
            session, created = await self._take(name, draft)
            if created or (session.user, session.path) == (draft.user, draft.path):
                return session, created
        raise Unavailable("too many sessions began with this path; close some")

    async def replace(self, session: Session, draft: Draft) -> Session | None:
        moved = draft.kernel_id != session.kernel_id
        changed = self._clock.stamp()
        current = self._view.sessions.get(session.id)
        if not moved and current is not None:
            changed = current.record.changed
        extra = {} if current is None else dict(current.record.extra)
        return await self._put(session.id, _record(draft, changed, extra), session.revision)

    async def remove(self, session: Session) -> None:
        key = self._keys.of(Kind.SESSION, session.id)
        try:
            result = await self._store.txn(
                [ModEquals(key, session.revision)], [Delete(key)], timeout=_TIMEOUT
            )
        except StoreError as error:
            # It is hidden without its kernel, and the sweep deletes it once etcd answers.
            _log.info("a session stays for now", session=session.id, error=str(error))
            return
        if result.succeeded:
            self._view.remove(key, result.revision)

    async def _take(self, name: str, draft: Draft) -> tuple[Session, bool]:
        """The session ``name``: the draft if there was none, else the one there is."""
        record = _record(draft, self._clock.stamp(), {})
        for _ in range(_TRIES):
            made = await self._put(name, record, 0)
            if made is not None:
                return made, True
            entry = await self._read(name)
            if entry is not None:
                return self._session(name, entry), False
        raise Unavailable("this session is being changed by others; ask again")

    async def _put(self, name: str, record: SessionRecord, revision: int) -> Session | None:
        """Write it over ``revision``; None when that is not what stands there."""
        put = Put(self._keys.of(Kind.SESSION, name), record.encode())
        doubtful = False
        for _ in range(_TRIES):
            try:
                result = await self._store.txn(
                    [ModEquals(put.key, revision)], [put], timeout=_TIMEOUT
                )
            except Unknown:
                doubtful = True
                continue  # the compare makes it safe: it is refused if the first one won
            except StoreError as error:
                raise Unavailable(f"etcd did not take the session: {error}") from error
            if result.succeeded:
                return self._stored(put, result.revision, name)
            found = await self._read(name) if doubtful else None
            # Won by the write whose answer was lost: its kernel id is one that nobody else has.
            return None if found is None or found.record != record else self._session(name, found)
        raise Unavailable("etcd does not answer reliably; ask again")

    def _stored(self, put: Put, revision: int, name: str) -> Session:
        self._view.apply(KeyValue(put.key, put.value, revision, revision, 1))
        return self._session(name, Entry(SessionRecord.decode(put.value), revision, 0))

    async def _read(self, name: str) -> Entry[SessionRecord] | None:
        try:
            entry: Entry[SessionRecord] | None = await self._view.read(Kind.SESSION, name)
        except (StoreError, RecordError) as error:
            raise Unavailable(f"etcd does not answer: {error}") from error
        return entry

    async def _catch_up(self) -> None:
        try:
            await self._view.catch_up()
        except StoreError as error:
            _log.debug("sessions are from the cache", error=str(error))

    def _session(self, name: str, entry: Entry[SessionRecord]) -> Session:
        record = entry.record
        return Session(
            id=name,
            user=record.user,
            path=record.path,
            name=record.name,
            kind=record.kind,
            kernel_id=record.kernel_id,
            revision=entry.revision,
            age=self._clock.age(record.changed),
        )


def session_id(user: str, path: str, number: int) -> str:
    """A UUID that every proxy makes alike. ``user`` has no NUL: it is printable."""
    return str(uuid.uuid5(_SPACE, f"{user}\0{number}\0{path}"))


def _record(draft: Draft, changed: str, extra: dict[str, object]) -> SessionRecord:
    return SessionRecord(
        user=draft.user,
        path=draft.path,
        name=draft.name,
        kind=draft.kind,
        kernel_id=draft.kernel_id,
        changed=changed,
        extra=extra,
    )
