"""Who may speak for a launcher: by the join token once, by a credential of its own from then on.

Safety rule: *the join token opens no launcher that has proven its own credential*. It is on every
compute node, where users' code runs; whoever read it there could otherwise speak for another node,
be sent its users' code to start, and say that its kernels are dead. A join whose answer was lost
has proven nothing, so it may be repeated. A launcher that lost its state directory needs an
administrator, who has the cluster forget it: the error says how.

Knows the store and the view; must not know heartbeats.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import replace

import structlog

from holdfast_protocol.errors import RecordError
from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.records import CredentialRecord
from holdfast_proxy.errors import Forbidden, NotFound, Unauthorized, Unavailable
from holdfast_proxy.ownership.cache import ClusterView, Entry
from holdfast_proxy.store.contract import Delete, KeyValue, ModEquals, Put, Store
from holdfast_proxy.store.errors import StoreError

_log = structlog.get_logger(__name__)

_TIMEOUT = 2.0


class JoinGate:
    """``join_token`` None: nobody new is let in by this proxy."""

    def __init__(
        self, *, store: Store, keys: Keys, view: ClusterView, join_token: str | None
    ) -> None:
        self._store = store
        self._keys = keys
        self._view = view
        self._join_token = join_token

    def __repr__(self) -> str:
        return f"<JoinGate, {len(self._view.credentials)} launchers known>"

    async def admit(self, launcher_id: str, credential: str) -> bool:
        """Whether it is to join: False for one that shows its own credential.

        Raises Unauthorized, Forbidden (it has joined before), Unavailable.
        """
        known = self._view.credentials.get(launcher_id)
        if known is not None and _matches(known.record, credential):
            return False
        joins = self._join_token is not None and hmac.compare_digest(
            _bytes(credential), self._join_token.encode()
        )
        # Another proxy may have let it join a moment ago, and our watch be behind.
        fresh = await self._fresh(launcher_id)
        if joins:
            if fresh is not None and fresh.record.proven:
                raise _taken(launcher_id)
            return True
        if fresh is None or not _matches(fresh.record, credential):
            raise Unauthorized(
                f"launcher {launcher_id!r} is not known by this credential; give it the "
                "cluster's join token once"
            )
        return False

    async def _fresh(self, launcher_id: str) -> Entry[CredentialRecord] | None:
        try:
            found: Entry[CredentialRecord] | None = await self._view.read(
                Kind.CREDENTIAL, launcher_id
            )
        except (StoreError, RecordError) as error:
            raise Unavailable(f"the credential cannot be checked now: {error}") from error
        return found

    async def join(self, launcher_id: str) -> str:
        """A new credential; one that was given before and never shown stops working.

        Raises Forbidden when it was shown meanwhile, Unavailable.
        """
        credential = secrets.token_urlsafe(32)
        digest = hashlib.sha256(credential.encode()).hexdigest()
        record = CredentialRecord(sha256=digest, proven=False)
        for _ in range(3):
            seen = await self._fresh(launcher_id)
            if seen is not None and seen.record.proven:
                raise _taken(launcher_id)
            if await self._put(launcher_id, record, 0 if seen is None else seen.revision):
                _log.info("launcher joined", launcher=launcher_id)
                return credential
        raise Unavailable("another heartbeat of this launcher joins right now; try again")

    async def confirm(self, launcher_id: str) -> None:
        """It has shown its own credential: from now on the join token does not open it."""
        known = self._view.credentials.get(launcher_id)
        if known is None or known.record.proven:
            return
        try:
            await self._put(launcher_id, replace(known.record, proven=True), known.revision)
        except Unavailable as error:
            _log.debug("a credential is not noted as proven yet", error=error.message)

    async def forget(self, launcher_id: str) -> None:
        """Let it join anew. Its kernels go on; it may not speak for them until it has joined.

        Raises NotFound, Unavailable.
        """
        seen = await self._fresh(launcher_id)
        if seen is None:
            raise NotFound(f"no launcher {launcher_id!r} has joined", reason="no_such_launcher")
        key = self._keys.of(Kind.CREDENTIAL, launcher_id)
        try:
            result = await self._store.txn(
                [ModEquals(key, seen.revision)], [Delete(key)], timeout=_TIMEOUT
            )
        except StoreError as error:
            raise Unavailable(f"etcd does not answer: {error}") from error
        if not result.succeeded:
            raise Unavailable("this launcher has just joined again; look, and ask once more")
        self._view.remove(key, result.revision)
        _log.warning("launcher forgotten", launcher=launcher_id)

    async def _put(self, launcher_id: str, record: CredentialRecord, observed: int) -> bool:
        key = self._keys.of(Kind.CREDENTIAL, launcher_id)
        value = record.encode()
        try:
            result = await self._store.txn(
                [ModEquals(key, observed)], [Put(key, value)], timeout=_TIMEOUT
            )
        except StoreError as error:
            raise Unavailable(f"launchers cannot join while etcd is away: {error}") from error
        if result.succeeded:
            self._view.apply(KeyValue(key, value, result.revision, result.revision, 1))
        return result.succeeded


def _taken(launcher_id: str) -> Forbidden:
    return Forbidden(
        f"launcher {launcher_id!r} has joined before and this is not its credential. If another "
        "node was given this launcher_id, give it one of its own. If this one lost its state "
        f"directory, an administrator runs: holdfast forget-launcher {launcher_id}",
        reason="launcher_id_taken",
    )


def _matches(record: CredentialRecord, credential: str) -> bool:
    digest = hashlib.sha256(_bytes(credential)).hexdigest()
    return hmac.compare_digest(digest, record.sha256)


def _bytes(credential: str) -> bytes:
    return credential.encode("utf-8", "surrogateescape")
