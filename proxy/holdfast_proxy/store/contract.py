"""The contract between Holdfast and its coordination store: revisions, compares, leases, watches.

Two classes keep it: `etcd.EtcdStore` and the in-memory `memory.MemoryStore`; one suite
(``tests/contracts``) runs against both. Values are opaque bytes and keys are text: what they
mean is not known here, nor is gRPC.

*Outcomes.* A write ends in one of three ways and the type says which: **won** (`TxnResult` with
``succeeded``), **lost** (`TxnResult` without, or another answer that says no: `Rejected`,
`LeaseLost`) and **unknown** (`Unknown`). `Unreachable` is not a fourth: it is "surely nothing
happened". A cancelled call is unknown as well.

*Deadlines.* Every call ends by ``timeout`` seconds (None: the store's default) with an answer or
an error of `errors.py`. Only a watch goes on for as long as it is read.

Rejected: plain ``put`` and ``delete`` methods. A write without a compare is how two owners
overwrite each other, so `txn` is the only way to write and wants its unconditional form named.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

#: etcd's own default limit (``--max-txn-ops``) for compares, and for operations of each branch.
MAX_TXN_OPS = 128
#: Below etcd's default of 1.5 MiB (``--max-request-bytes``), with room for the encoding.
MAX_TXN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as stored. ``version`` counts puts since creation, from 1; ``lease`` 0 is none."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys under a prefix at ``revision``, sorted by key (by code point, as by UTF-8 byte).

    A watch from ``revision + 1`` continues it with nothing missing and nothing twice.
    """

    kvs: tuple[KeyValue, ...]
    revision: int

    def __iter__(self) -> Iterator[KeyValue]:
        return iter(self.kvs)

    def __len__(self) -> int:
        return len(self.kvs)


@dataclass(frozen=True, slots=True)
class ModEquals:
    """Holds when the key was last changed at ``revision``; 0: when the key is absent."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class CreateEquals:
    """Holds when the key was created at ``revision``; 0: when the key is absent."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class ValueEquals:
    """Holds when the key exists with exactly this value. An absent key never holds."""

    key: str
    value: bytes


Compare = ModEquals | CreateEquals | ValueEquals


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key. ``lease`` 0 detaches it from any lease that it had."""

    key: str
    value: bytes = field(repr=False)
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key; an absent one is no error."""

    key: str


@dataclass(frozen=True, slots=True)
class DeletePrefix:
    """Delete every key that starts with ``prefix``."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Get:
    """Read one key, after the operations before it in the same branch."""

    key: str


Op = Put | Delete | DeletePrefix | Get


@dataclass(frozen=True, slots=True)
class Stored:
    """The response to a `Put`; the key's mod revision is the transaction's."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The response to a `Delete` or `DeletePrefix`: how many keys went."""

    count: int


@dataclass(frozen=True, slots=True)
class Found:
    """The response to a `Get`; None: the key is absent."""

    kv: KeyValue | None


Response = Stored | Deleted | Found


@dataclass(frozen=True, slots=True)
class TxnResult:
    """``succeeded``: all compares held and ``then`` ran; otherwise ``otherwise`` ran.

    ``revision`` is the store's revision after the transaction: when it wrote anything, the mod
    revision of everything that it wrote. ``responses``: one for each operation, in order.
    """

    succeeded: bool
    revision: int
    responses: tuple[Response, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one key at ``revision``. ``kv`` None: it was deleted (also by its lease)."""

    key: str
    revision: int
    kv: KeyValue | None

    @property
    def deleted(self) -> bool:
        return self.kv is None


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """At least one event; all events of the prefix up to ``revision`` have now been delivered.

    In order of revision. The events of one transaction are never split over two batches.
    """

    revision: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the etcd cluster. ``name`` is empty until it has started once."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool = False


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What the answering ``member`` says of itself. ``leader`` 0: it sees none.

    ``version``: the server's, such as ``3.5.33``. ``warning``: a sentence for the operator when
    that version is known to be unsound, else None. ``members`` is empty where the user that we
    authenticate as may not list them.
    """

    version: str
    member: int
    leader: int
    endpoint: str
    db_bytes: int
    members: tuple[Member, ...]
    warning: str | None = None


class Watch(ABC):
    """An asynchronous iterator of `WatchBatch`, for one reader; close it when done.

    Invariant: the batches delivered so far hold every event of the prefix from
    ``start_revision`` up to the last batch's revision, each once and in order, whatever happened
    to connections and nodes in between. Where that cannot be kept, `Compacted` is raised instead
    of the next batch and the iteration is over. It waits through outages without end and raises
    nothing for them; ``connected`` tells.

    Cancelling a pending ``anext`` loses no batch.
    """

    @property
    @abstractmethod
    def connected(self) -> bool:
        """The store has confirmed this watch and was heard within the watchdog's interval.

        Meaningful while somebody waits in ``anext``; reads nothing by itself.
        """

    @abstractmethod
    async def __anext__(self) -> WatchBatch:
        """The next batch. Raises `Compacted`, `Rejected` (no permission), or StopAsyncIteration
        once the watch or its store is closed."""

    @abstractmethod
    async def aclose(self) -> None:
        """End it. Idempotent; a pending ``anext`` ends with StopAsyncIteration."""

    def __aiter__(self) -> AsyncIterator[WatchBatch]:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class Store(ABC):
    """A strictly serializable key-value store with leases and watches.

    All methods raise `Misuse` after `close`, and `Rejected` when the store answers no.
    """

    @abstractmethod
    async def get(
        self, key: str, *, serializable: bool = False, timeout: float | None = None
    ) -> KeyValue | None:
        """One key, or None when it is absent.

        Linearizable unless ``serializable``, which may be stale but needs no leader. Raises
        `Unreachable`; absence is never guessed from silence.
        """

    @abstractmethod
    async def range(
        self, prefix: str, *, serializable: bool = False, timeout: float | None = None
    ) -> Snapshot:
        """Every key that starts with ``prefix``, at one revision. Raises `Unreachable`."""

    @abstractmethod
    async def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Op],
        otherwise: Sequence[Op] = (),
        *,
        unconditional: bool = False,
        timeout: float | None = None,
    ) -> TxnResult:
        """When all compares hold, do ``then``, else ``otherwise``.

        Atomic and strictly serializable: nobody sees a part of it, and all that it wrote has one
        revision. A transaction that changes nothing makes no revision. Applied at most once: it
        is sent again only when it surely had no effect.

        Raises `Unreachable` (surely not applied), `Unknown` (perhaps applied), `LeaseLost` (a
        put in the taken branch names a lease that does not exist; nothing was applied),
        `Rejected`, and `Misuse` for: no compare without ``unconditional=True``, or with it some;
        a key put twice, or put and deleted, in one branch; more than `MAX_TXN_OPS` compares or
        operations; more than `MAX_TXN_BYTES`; an empty key.
        """

    @abstractmethod
    def watch(self, prefix: str, *, start_revision: int) -> Watch:
        """Changes of every key under ``prefix`` from ``start_revision`` (≥ 1) on, also past ones.

        Take ``Snapshot.revision + 1``. A revision that is still to come is waited for.
        """

    @abstractmethod
    async def lease_grant(self, ttl: float, *, timeout: float | None = None) -> int:
        """A new lease's id (> 0). ``ttl`` in seconds, rounded up to whole ones; the store may
        grant more (etcd: at least its election timeout and a half).

        Raises `Unknown` when it may exist; it then expires by itself.
        """

    @abstractmethod
    async def lease_keepalive(self, lease: int, *, timeout: float | None = None) -> float:
        """Renew it; the remaining seconds, counted from when the store answered.

        Count a fence from before the call. Raises `LeaseLost`, `Unreachable`, or `Unknown`
        (renewed or not).
        """

    @abstractmethod
    async def lease_revoke(self, lease: int, *, timeout: float | None = None) -> None:
        """End it and delete its keys, in one revision. One that is gone already is no error.

        Raises `Unreachable` or `Unknown`.
        """

    @abstractmethod
    async def status(self, *, timeout: float | None = None) -> StoreStatus:
        """Server version, leader and members, from the endpoint in use. Raises `Unreachable`."""

    @abstractmethod
    async def close(self) -> None:
        """End watches and connections. Leases are left to expire. Idempotent."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
