"""Heartbeats in: who a launcher is, that it lives, what it says of its kernels.

A launcher holds no etcd credentials: any proxy writes ``launchers/<id>`` for it, under a lease
that any proxy renews, so a launcher that changes proxies changes nothing. A join token makes it a
credential of its own, of which only the hash is stored. An expired launcher lease stops placement
and nothing else. With etcd away heartbeats still refresh what this proxy knows.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog

from holdfast_protocol.errors import RecordError
from holdfast_protocol.kernel_records import KernelRecord
from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.record_codec import Fields
from holdfast_protocol.records import (
    ActivityRecord,
    CredentialRecord,
    KernelReport,
    LauncherRecord,
    read_reports,
)
from holdfast_proxy.config import is_loopback
from holdfast_proxy.errors import BadRequest, Unauthorized, Unavailable
from holdfast_proxy.ownership.cache import ClusterView, Entry
from holdfast_proxy.ownership.calls.calling import Target
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.ownership.nodes.reports import Reports
from holdfast_proxy.ownership.sealing import Sealer, SealError
from holdfast_proxy.store.contract import KeyValue, ModEquals, Put, Store
from holdfast_proxy.store.errors import LeaseLost, StoreError

_log = structlog.get_logger(__name__)

#: Seconds that a launcher's record outlives its last heartbeat.
LAUNCHER_TTL = 10.0
#: Seconds between two writes of one launcher's activity.
_ACTIVITY_EVERY = 2.0
_TIMEOUT = 2.0
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class Launchers:
    """The launchers of this cluster, as their heartbeats and etcd have them."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        view: ClusterView,
        reports: Reports,
        sealer: Sealer,
        clock: Clock,
        join_token: str | None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._view = view
        self._reports = reports
        self._sealer = sealer
        self._clock = clock
        self._join_token = join_token
        self._local: dict[str, LauncherRecord] = {}
        self._leases: dict[str, int] = {}
        self._activity: dict[str, tuple[float, bytes, int]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._heard: dict[str, str] = {}
        self._on_stranger: list[Callable[[str, str, KernelReport], None]] = []

    def __repr__(self) -> str:
        return f"<Launchers {', '.join(sorted(self._view.launchers)) or 'none'}>"

    def on_stranger(self, listener: Callable[[str, str, KernelReport], None]) -> None:
        """``listener(launcher_id, kernel_id, report)`` for each living kernel that a heartbeat
        to this proxy names and that is not assigned to that launcher; must not block."""
        self._on_stranger.append(listener)

    # --- reading ---

    @property
    def heard(self) -> dict[str, str]:
        """When this proxy itself last had a heartbeat of each launcher, ISO 8601."""
        return dict(self._heard)

    def record(self, launcher_id: str) -> LauncherRecord | None:
        """From etcd, else from the last heartbeat to this proxy (etcd is away, or it expired)."""
        entry = self._view.launchers.get(launcher_id)
        return self._local.get(launcher_id) if entry is None else entry.record

    def target(self, launcher_id: str) -> Target:
        """Where and how to call it. Raises Unavailable when it is not connected."""
        record = self.record(launcher_id)
        if record is None:
            raise Unavailable(f"launcher {launcher_id!r} is not connected", retry_after=2.0)
        path = self._keys.of(Kind.LAUNCHER, launcher_id)
        try:
            token = self._sealer.open(path, record.sealed_access_token)
        except SealError as error:
            raise Unavailable(str(error)) from error
        return Target(url=record.url, bearer=token, fingerprint=record.fingerprint)

    # --- heartbeats ---

    async def heartbeat(
        self, launcher_id: str, credential: str, body: Mapping[str, Any]
    ) -> str | None:
        """Take one heartbeat in; the new credential when it joined, else None.

        Raises Unauthorized, BadRequest, Unavailable (a join, or a credential that cannot be
        checked, while etcd is away).
        """
        self._check_name(launcher_id)
        # Before the lock: who is not a launcher makes none, and makes none wait.
        joined = await self._authenticate(launcher_id, credential)
        self._heard[launcher_id] = self._clock.stamp()
        async with self._locks.setdefault(launcher_id, asyncio.Lock()):
            record, reports = self._read(launcher_id, body)
            self._local[launcher_id] = record
            own = {
                name: item for name, item in reports.items() if self._assigned(launcher_id, name)
            }
            self._reports.hear(launcher_id, own)
            for name, report in reports.items():
                if name not in own and report.alive:
                    for listener in self._on_stranger:
                        listener(launcher_id, name, report)
            try:
                lease = await self._register(launcher_id, record)
                await self._write_activity(launcher_id, own, lease)
            except StoreError as error:
                _log.debug("a heartbeat was not written to etcd", error=str(error))
            return joined

    def _check_name(self, launcher_id: str) -> None:
        try:
            self._keys.of(Kind.LAUNCHER, launcher_id)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        if len(launcher_id) > 128:
            raise BadRequest("a launcher's id has at most 128 characters")

    def _assigned(self, launcher_id: str, kernel_id: str) -> bool:
        entry = self._view.kernel(kernel_id)
        return (
            entry is not None
            and isinstance(entry.record, KernelRecord)
            and entry.record.launcher_id == launcher_id
        )

    async def _authenticate(self, launcher_id: str, credential: str) -> str | None:
        known = self._view.credentials.get(launcher_id)
        if known is not None and _matches(known.record, credential):
            return None
        if self._join_token is not None and hmac.compare_digest(
            _bytes(credential), self._join_token.encode()
        ):
            return await self._join(launcher_id)
        try:
            # Another proxy may have let it join a moment ago, and our watch be behind.
            fresh: Entry[CredentialRecord] | None = await self._view.read(
                Kind.CREDENTIAL, launcher_id
            )
        except (StoreError, RecordError) as error:
            raise Unavailable(f"the credential cannot be checked now: {error}") from error
        if fresh is None or not _matches(fresh.record, credential):
            raise Unauthorized(
                f"launcher {launcher_id!r} is not known by this credential; give it the "
                "cluster's join token once"
            )
        return None

    async def _join(self, launcher_id: str) -> str:
        """A new credential; a former one stops working."""
        credential = secrets.token_urlsafe(32)
        digest = hashlib.sha256(credential.encode()).hexdigest()
        key = self._keys.of(Kind.CREDENTIAL, launcher_id)
        value = CredentialRecord(sha256=digest).encode()
        try:
            for _ in range(3):
                seen = await self._store.get(key, timeout=_TIMEOUT)
                observed = 0 if seen is None else seen.mod_revision
                result = await self._store.txn(
                    [ModEquals(key, observed)], [Put(key, value)], timeout=_TIMEOUT
                )
                if result.succeeded:
                    self._view.apply(KeyValue(key, value, result.revision, result.revision, 1))
                    _log.info("launcher joined", launcher=launcher_id)
                    return credential
        except StoreError as error:
            raise Unavailable(f"launchers cannot join while etcd is away: {error}") from error
        raise Unavailable("another heartbeat of this launcher joins right now; try again")

    def _read(
        self, launcher_id: str, body: Mapping[str, Any]
    ) -> tuple[LauncherRecord, dict[str, KernelReport]]:
        source = Fields(body, "heartbeat")
        try:
            fingerprint = source.text_or_none("fingerprint")
            record = LauncherRecord(
                url=_checked_url(source.text("url"), fingerprint),
                fingerprint=fingerprint,
                sealed_access_token=self._sealed(launcher_id, source.text("access_token")),
                boot_id=source.text("boot_id"),
                engine=source.text("engine"),
                labels=source.mapping("labels"),
                capacity=source.mapping("capacity"),
                kernelspecs_digest=source.text("kernelspecs_digest"),
            )
            return record, read_reports(source.mapping("kernels"))
        except RecordError as error:
            raise BadRequest(str(error)) from error

    def _sealed(self, launcher_id: str, token: str) -> str:
        """The sealed form, the same as before while the token is: sealing is randomized, and a
        heartbeat that says nothing new must write nothing."""
        path = self._keys.of(Kind.LAUNCHER, launcher_id)
        for record in (self._local.get(launcher_id), self.record(launcher_id)):
            if record is None:
                continue
            try:
                if self._sealer.open(path, record.sealed_access_token) == token:
                    return record.sealed_access_token
            except SealError:
                continue
        return self._sealer.seal(path, token)

    async def _register(self, launcher_id: str, record: LauncherRecord) -> int:
        """Renew the lease, and write the record when it differs. Raises StoreError."""
        key = self._keys.of(Kind.LAUNCHER, launcher_id)
        entry = self._view.launchers.get(launcher_id)
        lease = self._leases.get(launcher_id, 0) if entry is None else entry.lease
        if lease:
            try:
                await self._store.lease_keepalive(lease, timeout=_TIMEOUT)
            except LeaseLost:
                lease, entry = 0, None
        if lease and entry is not None and entry.record == record:
            return lease
        if not lease:
            lease = await self._store.lease_grant(LAUNCHER_TTL, timeout=_TIMEOUT)
        self._leases[launcher_id] = lease
        value = record.encode()
        for _ in range(3):
            seen = await self._store.get(key, timeout=_TIMEOUT)
            observed = 0 if seen is None else seen.mod_revision
            result = await self._store.txn(
                [ModEquals(key, observed)], [Put(key, value, lease)], timeout=_TIMEOUT
            )
            if result.succeeded:
                self._view.apply(KeyValue(key, value, result.revision, result.revision, 1, lease))
                break
        return lease

    async def _write_activity(
        self, launcher_id: str, reports: Mapping[str, KernelReport], lease: int
    ) -> None:
        """On change, and not more often than every two seconds: a later heartbeat brings it.
        Evidence of death is written at once."""
        value = ActivityRecord(kernels=reports).encode()
        written_at, written, under = self._activity.get(launcher_id, (-1e9, b"", 0))
        if value == written and lease == under:
            return
        now = self._clock.now()
        urgent = any(not report.alive for report in reports.values())
        if now - written_at < _ACTIVITY_EVERY and not urgent:
            return
        key = self._keys.of(Kind.ACTIVITY, launcher_id)
        entry = self._view.activity.get(launcher_id)
        observed = 0 if entry is None else entry.revision
        result = await self._store.txn(
            [ModEquals(key, observed)], [Put(key, value, lease)], timeout=_TIMEOUT
        )
        if result.succeeded:
            self._activity[launcher_id] = (now, value, lease)
            self._view.apply(KeyValue(key, value, result.revision, result.revision, 1, lease))


def _matches(record: CredentialRecord, credential: str) -> bool:
    digest = hashlib.sha256(_bytes(credential)).hexdigest()
    return hmac.compare_digest(digest, record.sha256)


def _bytes(credential: str) -> bytes:
    """Of a header that anybody may have sent: what was no UTF-8 is surrogates in it."""
    return credential.encode("utf-8", "surrogateescape")


def _checked_url(url: str, fingerprint: str | None) -> str:
    """A launcher's address as proxies may call it: our calls carry its access token and users'
    variables. Raises RecordError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise RecordError(f"heartbeat: field 'url' is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise RecordError("heartbeat: field 'url' must be http://host:port or https://host:port")
    if parts.scheme == "http" and not is_loopback(host):
        raise RecordError("heartbeat: field 'url' is plain HTTP, which is for loopback only")
    if fingerprint is not None and _FINGERPRINT.fullmatch(fingerprint) is None:
        raise RecordError("heartbeat: field 'fingerprint' is no SHA-256 in hexadecimal")
    return url.rstrip("/")


def body_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 hex of a JSON document, the same for equal ones."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
