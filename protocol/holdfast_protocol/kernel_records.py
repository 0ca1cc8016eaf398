"""A kernel's record in etcd, its states, and which changes of state there are.

Transitions are data (``TRANSITIONS``); ``advance`` is the only way from one state to another and
``next_step`` says what an owner has still to do, so that any owner resumes what another one left
half done. Nothing here reads a clock: times come in as ISO 8601 UTC text.

Invariants that ``check_invariants`` enforces, and why they matter:

- a record with an endpoint has fingerprint-or-loopback, credential and epoch: a proxy that tunnels
  needs nothing else than the record;
- ``running`` has an endpoint: no kernel runs whose keeper nobody could find, because the keeper
  starts its kernel only after the endpoint is in the record;
- ``dead`` has a reason: dead is said on evidence (promise 7);
- a tombstone names the nonce that it buried, so that a keeper found later can be told from a
  living kernel's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from holdfast_protocol.errors import InvalidState, RecordError
from holdfast_protocol.record_codec import Fields, Record, document_fields


class KernelState(Enum):
    """What the record says; what clients see is made from it and from live evidence."""

    STARTING = "starting"
    RUNNING = "running"
    DEAD = "dead"
    DELETING = "deleting"


class KernelEvent(Enum):
    """What happens to a record."""

    PLACED = "placed"  # on another launcher: nothing of the first one was ever started
    LAUNCHED = "launched"  # its keeper's endpoint is known
    STARTED = "started"  # the kernel answers
    RESTARTED = "restarted"  # the next incarnation answers
    DIED = "died"
    DELETED = "deleted"  # somebody asked for the deletion


class Step(Enum):
    """What the owner has to do next for this record."""

    LAUNCH = "ask the launcher for a keeper"
    BEGIN = "tell the keeper to start the kernel"
    ERASE = "end keeper and kernel, then put a tombstone"
    BURY = "end what the dead kernel left on its launcher"
    REST = "nothing"


_S, _E = KernelState, KernelEvent

TRANSITIONS: Mapping[tuple[KernelState, KernelEvent], KernelState] = {
    (_S.STARTING, _E.PLACED): _S.STARTING,
    (_S.STARTING, _E.LAUNCHED): _S.STARTING,
    (_S.STARTING, _E.STARTED): _S.RUNNING,
    (_S.STARTING, _E.DIED): _S.DEAD,
    (_S.STARTING, _E.DELETED): _S.DELETING,
    (_S.RUNNING, _E.LAUNCHED): _S.RUNNING,  # another keeper adopted the living kernel
    (_S.RUNNING, _E.RESTARTED): _S.RUNNING,
    (_S.RUNNING, _E.DIED): _S.DEAD,
    (_S.RUNNING, _E.DELETED): _S.DELETING,
    (_S.DEAD, _E.DELETED): _S.DELETING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(Record):
    """Where a keeper listens."""

    host: str
    port: int

    @classmethod
    def read(cls, source: Fields) -> Endpoint:
        port = source.integer("port")
        if not 0 < port < 65536:
            raise RecordError(f"endpoint: field 'port' is {port}, which no listener has")
        return cls(host=source.text("host"), port=port, extra=source.rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRecord(Record):
    """``kernels/<kernel_id>`` of a kernel that is not deleted.

    ``nonce`` names this start; ``digest`` is the start request's, so that a retry is known from
    a different request with the same id. ``sealed_launch`` holds what a later owner needs to
    launch it (env, path); ``sealed_credential`` the keeper's. ``incarnation`` counts kernel
    processes. ``changed`` is when ``state`` last changed. ``buried`` says that nothing of a dead
    kernel is left on its launcher.
    """

    spec_name: str
    user: str
    launcher_id: str
    nonce: str
    digest: str
    state: KernelState
    changed: str
    sealed_launch: str = field(repr=False)
    endpoint: Endpoint | None = None
    fingerprint: str | None = None
    sealed_credential: str | None = field(default=None, repr=False)
    epoch: str | None = None
    engine_handle: Mapping[str, Any] = field(default_factory=dict)
    incarnation: int = 0
    kernel_session: str | None = None
    reason: str | None = None
    buried: bool = False

    @classmethod
    def read(cls, source: Fields) -> KernelRecord:
        inner = source.inner("endpoint")
        record = cls(
            spec_name=source.text("spec_name"),
            user=source.text("user"),
            launcher_id=source.text("launcher_id"),
            nonce=source.text("nonce"),
            digest=source.text("digest"),
            state=source.choice("state", KernelState),
            changed=source.text("changed"),
            sealed_launch=source.text("sealed_launch"),
            endpoint=None if inner is None else Endpoint.read(inner),
            fingerprint=source.text_or_none("fingerprint"),
            sealed_credential=source.text_or_none("sealed_credential"),
            epoch=source.text_or_none("epoch"),
            engine_handle=source.mapping("engine_handle"),
            incarnation=source.integer("incarnation", default=0),
            kernel_session=source.text_or_none("kernel_session"),
            reason=source.text_or_none("reason"),
            buried=source.boolean("buried", default=False),
            extra=source.rest,
        )
        record.check_invariants()
        return record

    def check_invariants(self) -> None:
        """Raise RecordError when the module's invariants do not hold."""
        if self.endpoint is not None and (self.sealed_credential is None or self.epoch is None):
            raise RecordError("KernelRecord: field 'endpoint' without credential and epoch")
        if self.state is KernelState.RUNNING and self.endpoint is None:
            raise RecordError("KernelRecord: field 'endpoint' is missing in a running kernel's")
        if self.state is KernelState.DEAD and not self.reason:
            raise RecordError("KernelRecord: field 'reason' is missing in a dead kernel's")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone(Record):
    """``kernels/<kernel_id>`` of a deleted kernel, for a day; nothing follows it."""

    user: str
    nonce: str
    launcher_id: str
    deleted_at: str
    tombstone: bool = True

    @classmethod
    def read(cls, source: Fields) -> Tombstone:
        return cls(
            user=source.text("user"),
            nonce=source.text("nonce"),
            launcher_id=source.text("launcher_id"),
            deleted_at=source.text("deleted_at"),
            tombstone=source.boolean("tombstone", default=True),
            extra=source.rest,
        )


def decode_kernel(data: bytes) -> KernelRecord | Tombstone:
    """Read ``kernels/<kernel_id>``. Raises RecordError."""
    source = document_fields(data, "KernelRecord", KernelRecord.VERSION)
    if source.rest.get("tombstone") is True:
        return Tombstone.read(source)
    return KernelRecord.read(source)


def advance(
    record: KernelRecord, event: KernelEvent, *, changed: str, **fields: Any
) -> KernelRecord:
    """The record after ``event`` with ``fields`` changed. Pure.

    Raises InvalidState when there is no such transition, RecordError when the result would break
    an invariant; then nothing was changed.
    """
    state = TRANSITIONS.get((record.state, event))
    if state is None:
        raise InvalidState(f"a {record.state.value} kernel cannot be {event.value}")
    when = changed if state is not record.state else record.changed
    result = replace(record, state=state, changed=when, **fields)
    result.check_invariants()
    return result


def bury(record: KernelRecord, *, deleted_at: str) -> Tombstone:
    """The tombstone of a record whose keeper and kernel are proven gone."""
    if record.state is not KernelState.DELETING:
        raise InvalidState(f"a {record.state.value} kernel cannot get a tombstone")
    return Tombstone(
        user=record.user,
        nonce=record.nonce,
        launcher_id=record.launcher_id,
        deleted_at=deleted_at,
    )


def next_step(record: KernelRecord | Tombstone | None) -> Step:
    """What an owner that finds ``record`` has to do, whoever wrote it. Pure and total."""
    if record is None or isinstance(record, Tombstone):
        return Step.REST
    match record.state:
        case KernelState.STARTING:
            return Step.LAUNCH if record.endpoint is None else Step.BEGIN
        case KernelState.DELETING:
            return Step.ERASE
        case KernelState.DEAD:
            return Step.REST if record.buried else Step.BURY
        case KernelState.RUNNING:
            return Step.REST
