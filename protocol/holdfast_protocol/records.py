"""What stands in etcd about proxies, launchers and the cluster, as frozen values.

The key layout is in ``holdfast_protocol.keys``; a kernel's own record is in
``holdfast_protocol.kernel_records``. Nothing here reads a clock or knows the store. A field whose
name begins with ``sealed_`` holds ciphertext that only proxies can open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast_protocol.record_codec import Fields, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyRecord(Record):
    """``proxies/<proxy_id>``: a live proxy. Written once a term, never put again within it.

    ``fingerprint``: SHA-256 hex of its certificate; None when it speaks plain HTTP, or when
    something in front of it ends TLS with a certificate that verifies the usual way.
    """

    url: str
    boot_id: str
    software: str
    fingerprint: str | None = None

    @classmethod
    def read(cls, source: Fields) -> ProxyRecord:
        return cls(
            url=source.text("url"),
            boot_id=source.text("boot_id"),
            software=source.text("software"),
            fingerprint=source.text_or_none("fingerprint"),
            extra=source.rest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRecord(Record):
    """``owners/<kernel_id>``. ``claim_id`` is random per claim, so that a proxy whose claim
    timed out can tell from the key alone that it won."""

    proxy_id: str
    claim_id: str

    @classmethod
    def read(cls, source: Fields) -> OwnerRecord:
        return cls(
            proxy_id=source.text("proxy_id"),
            claim_id=source.text("claim_id"),
            extra=source.rest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRecord(Record):
    """``config``: what all proxies of a cluster must agree on. ``era`` counts etcd restores."""

    mode: str
    era: int

    @classmethod
    def read(cls, source: Fields) -> ConfigRecord:
        return cls(mode=source.text("mode"), era=source.integer("era"), extra=source.rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherRecord(Record):
    """``launchers/<launcher_id>``: where a launcher listens and what it can start.

    ``capacity["kernels"]`` bounds how many kernels are placed there; absent means no bound.
    """

    url: str
    fingerprint: str | None
    sealed_access_token: str = field(repr=False)
    boot_id: str
    engine: str
    labels: Mapping[str, Any]
    capacity: Mapping[str, Any]
    kernelspecs_digest: str

    @classmethod
    def read(cls, source: Fields) -> LauncherRecord:
        return cls(
            url=source.text("url"),
            fingerprint=source.text_or_none("fingerprint"),
            sealed_access_token=source.text("sealed_access_token"),
            boot_id=source.text("boot_id"),
            engine=source.text("engine"),
            labels=source.mapping("labels"),
            capacity=source.mapping("capacity"),
            kernelspecs_digest=source.text("kernelspecs_digest"),
            extra=source.rest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRecord(Record):
    """``credentials/<launcher_id>``: SHA-256 hex of the credential, never the credential."""

    sha256: str

    @classmethod
    def read(cls, source: Fields) -> CredentialRecord:
        return cls(sha256=source.text("sha256"), extra=source.rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelReport(Record):
    """What a launcher last said of one kernel: evidence, never hearsay of a proxy.

    ``alive`` is false only when the launcher has proven that the keeper or job is gone.
    ``last_activity`` is ISO 8601 UTC; ``nonce`` says which start of the kernel is meant.
    """

    nonce: str
    alive: bool
    reason: str | None = None
    execution_state: str | None = None
    last_activity: str | None = None
    connections: int = 0

    @classmethod
    def read(cls, source: Fields) -> KernelReport:
        return cls(
            nonce=source.text("nonce"),
            alive=source.boolean("alive", default=True),
            reason=source.text_or_none("reason"),
            execution_state=source.text_or_none("execution_state"),
            last_activity=source.text_or_none("last_activity"),
            connections=source.integer("connections", default=0),
            extra=source.rest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityRecord(Record):
    """``activity/<launcher_id>``: the last heartbeat's kernels, for the other proxies."""

    kernels: Mapping[str, KernelReport]

    @classmethod
    def read(cls, source: Fields) -> ActivityRecord:
        return cls(kernels=read_reports(source.mapping("kernels")), extra=source.rest)


def read_reports(document: Mapping[str, Any]) -> dict[str, KernelReport]:
    """The ``kernels`` of a heartbeat or an activity record. Raises RecordError."""
    holder = Fields(document, "kernel reports")
    reports: dict[str, KernelReport] = {}
    for kernel_id in document:
        source = holder.inner(kernel_id)
        if source is not None:
            reports[kernel_id] = KernelReport.read(source)
    return reports


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord(Record):
    """``events/<time>-<proxy>-<n>``: one line of the timeline. ``at`` is ISO 8601 UTC.

    ``proxy_id``: the proxy that it is about; where it is about none, the one that wrote it.
    ``facts``: plain values for those who draw it. ``mark``: what several proxies may have seen
    and written; a reader shows one line for each mark.
    """

    kind: str
    at: str
    proxy_id: str
    kernel_id: str | None = None
    detail: str = ""
    launcher_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    mark: str | None = None

    @classmethod
    def read(cls, source: Fields) -> EventRecord:
        return cls(
            kind=source.text("kind"),
            at=source.text("at"),
            proxy_id=source.text("proxy_id"),
            kernel_id=source.text_or_none("kernel_id"),
            detail=source.text_or_none("detail") or "",
            launcher_id=source.text_or_none("launcher_id"),
            facts=source.mapping("facts"),
            mark=source.text_or_none("mark"),
            extra=source.rest,
        )
