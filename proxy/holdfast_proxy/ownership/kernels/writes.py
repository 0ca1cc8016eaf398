"""Writes to ``kernels/<id>``: each compares the record's revision and the owner key.

Invariant: a record changes only by the proxy whose claim is the present owner key and who has
seen the record's present content, and only before its ``fence_at``. An answer that never came is
settled by reading: the record either has what was written (won), what was there before (try
again; the compare makes that safe), or something else (lost). Must not know keepers or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import KernelRecord, Tombstone
from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.records import OwnerRecord
from holdfast_proxy.errors import Unavailable
from holdfast_proxy.ownership.cache import ClusterView, Entry
from holdfast_proxy.ownership.leadership.authority import Authority
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.store.contract import Compare, Delete, KeyValue, ModEquals, Op, Put, Store
from holdfast_proxy.store.errors import LeaseLost, NoAnswer, StoreError, Unknown

_TIMEOUT = 2.0
_TRIES = 4


class WriteLost(Exception):
    """The record or its owner is not what we had seen: read again, then decide again."""


class KernelWriter:
    """The only place that writes kernel records."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        view: ClusterView,
        member: Member,
        authority: Authority,
    ) -> None:
        self._store = store
        self._keys = keys
        self._view = view
        self._member = member
        self._authority = authority

    def __repr__(self) -> str:
        return f"<KernelWriter of {self._member!r}>"

    def key(self, kernel_id: str) -> str:
        """The key whose path seals the record's secrets."""
        return self._keys.of(Kind.KERNEL, kernel_id)

    async def create(self, kernel_id: str, record: KernelRecord, *, claim_id: str) -> Token:
        """Step 1 of a start: the record and the owner key in one transaction.

        Raises WriteLost when either exists, Unavailable when it cannot be done now.
        """
        owner_key = self._keys.of(Kind.OWNER, kernel_id)
        owner = OwnerRecord(proxy_id=self._member.proxy_id, claim_id=claim_id)
        lease = self._member.lease_id
        absent = [ModEquals(self.key(kernel_id), 0), ModEquals(owner_key, 0)]
        compares = [*absent, self._member.compare, *self._authority.compares]
        puts = [Put(self.key(kernel_id), record.encode()), Put(owner_key, owner.encode(), lease)]
        revision = await self._settle(kernel_id, observed=0, compares=compares, ops=puts)
        self._view.apply(_as_stored(puts[1], revision))
        self._view.apply(_as_stored(puts[0], revision))
        return Token(self._member.era, revision)

    async def put(
        self,
        kernel_id: str,
        before: Entry[KernelRecord],
        record: KernelRecord,
        *,
        token: Token,
    ) -> Entry[KernelRecord]:
        """Replace the record. Raises WriteLost, Unavailable."""
        put = Put(self.key(kernel_id), record.encode())
        compares = self._compares(kernel_id, before.revision, token)
        revision = await self._settle(
            kernel_id, observed=before.revision, compares=compares, ops=[put]
        )
        self._view.apply(_as_stored(put, revision))
        return Entry(record, revision, 0)

    async def bury(
        self, kernel_id: str, before: Entry[KernelRecord], tombstone: Tombstone, *, token: Token
    ) -> None:
        """Put the tombstone and give up the owner key. Raises WriteLost, Unavailable."""
        put = Put(self.key(kernel_id), tombstone.encode())
        owner_key = self._keys.of(Kind.OWNER, kernel_id)
        compares = self._compares(kernel_id, before.revision, token)
        revision = await self._settle(
            kernel_id, observed=before.revision, compares=compares, ops=[put, Delete(owner_key)]
        )
        self._view.apply(_as_stored(put, revision))
        self._view.remove(owner_key, revision)

    async def forget(self, kernel_id: str, revision: int) -> None:
        """Delete a tombstone whose day is over; any proxy may. Raises Unavailable."""
        self._member.require()
        key = self.key(kernel_id)
        try:
            result = await self._store.txn(
                [ModEquals(key, revision), self._member.compare], [Delete(key)], timeout=_TIMEOUT
            )
        except StoreError as error:
            raise Unavailable(f"etcd did not take the deletion: {error}") from error
        if result.succeeded:
            self._view.remove(key, result.revision)

    def _compares(self, kernel_id: str, revision: int, token: Token) -> list[Compare]:
        return [
            ModEquals(self.key(kernel_id), revision),
            ModEquals(self._keys.of(Kind.OWNER, kernel_id), token.revision),
        ]

    async def _settle(
        self, kernel_id: str, *, observed: int, compares: Sequence[Compare], ops: Sequence[Op]
    ) -> int:
        """Run the transaction until its outcome is known; the revision that it wrote."""
        wanted = next(op.value for op in ops if isinstance(op, Put))
        doubtful = False
        for _ in range(_TRIES):
            self._member.require()
            try:
                result = await self._store.txn(compares, ops, timeout=_TIMEOUT)
            except Unknown:
                doubtful = True
                revision = await self._look(kernel_id, observed=observed, wanted=wanted)
                if revision is not None:
                    return revision
            except (NoAnswer, LeaseLost) as error:
                raise Unavailable(f"etcd did not take the change: {error}") from error
            except StoreError as error:
                raise Unavailable(f"etcd refused the change: {error}") from error
            else:
                if result.succeeded:
                    return result.revision
                revision = None
                if doubtful:  # the one whose answer was lost may have won in the meantime
                    revision = await self._look(kernel_id, observed=observed, wanted=wanted)
                if revision is None:
                    raise WriteLost(kernel_id)
                return revision
        raise Unavailable("etcd does not answer reliably; the change was not made")

    async def _look(self, kernel_id: str, *, observed: int, wanted: bytes) -> int | None:
        """The revision when ``wanted`` stands there; None when nothing changed since
        ``observed``. Raises WriteLost for anything else."""
        try:
            found = await self._store.get(self.key(kernel_id), timeout=_TIMEOUT)
        except StoreError as error:
            raise Unavailable(f"etcd does not answer: {error}") from error
        if found is not None:
            self._view.apply(found)
        revision = 0 if found is None else found.mod_revision
        if revision == observed:
            return None
        if found is not None and found.value == wanted:
            return revision
        raise WriteLost(kernel_id)


async def read_kernel(view: ClusterView, kernel_id: str) -> Entry[KernelRecord | Tombstone] | None:
    """The record by a linearizable read; None is proof that there is none. Raises Unavailable."""
    try:
        return await view.read(Kind.KERNEL, kernel_id)
    except StoreError as error:
        raise Unavailable(f"etcd does not answer, so nobody can say: {error}") from error
    except RecordError as error:
        raise Unavailable(f"the kernel's record cannot be read: {error}") from error


def _as_stored(put: Op, revision: int) -> KeyValue:
    assert isinstance(put, Put)
    return KeyValue(put.key, put.value, revision, revision, 1, put.lease)
