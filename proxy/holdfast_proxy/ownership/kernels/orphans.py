"""Keepers that no record is assigned to: restored, unless a tombstone names them.

A launcher comes back after a day, or etcd after a restore from a backup, and a kernel lives of
which the store knows nothing. Its user may need it, so its record is restored from what the
launcher says; only a keeper whose very start (nonce) was deleted is ended. Both by a
linearizable read and the same compared transactions as everything else. A start in progress is
never taken for an orphan: its record is written before its launcher hears of it.
"""

from __future__ import annotations

import json
import secrets
from uuid import UUID

import structlog

from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import Endpoint, KernelRecord, KernelState, Tombstone
from holdfast_protocol.records import KernelReport
from holdfast_proxy.errors import ProxyError
from holdfast_proxy.ownership.background import SingleFlight
from holdfast_proxy.ownership.calls.endpoints import check_endpoint
from holdfast_proxy.ownership.calls.keepers import KeeperError
from holdfast_proxy.ownership.calls.launcher_client import Handle, LauncherError
from holdfast_proxy.ownership.kernels.writes import WriteLost, read_kernel
from holdfast_proxy.ownership.nodes.launchers import body_digest
from holdfast_proxy.ownership.parts import Parts

_log = structlog.get_logger(__name__)

#: Seconds between two looks at one stranger.
_AGAIN = 10.0


class Orphans:
    """Looks at kernels that heartbeats name and no record is assigned to."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._flights = SingleFlight(parts.tasks)
        self._looked: dict[str, float] = {}
        parts.launchers.on_stranger(self._met)

    def __repr__(self) -> str:
        return f"<Orphans: {len(self._looked)} looked at>"

    def _met(self, launcher_id: str, kernel_id: str, report: KernelReport) -> None:
        now = self._parts.clock.now()
        self._looked = {name: at for name, at in self._looked.items() if now - at < _AGAIN}
        if not _is_kernel_id(kernel_id):
            return  # no client could ever name it
        if not self._parts.authority.may_own:
            return  # the leader hears of it too: see ``leadership.delegation``
        if kernel_id not in self._looked and self._parts.member.holds:
            self._looked[kernel_id] = now
            self._flights.begin(kernel_id, lambda: self.look(launcher_id, kernel_id, report.nonce))

    async def look(self, launcher_id: str, kernel_id: str, nonce: str) -> None:
        """Decide about one; what cannot be done now is done after a later heartbeat."""
        try:
            entry = await read_kernel(self._parts.view, kernel_id)
            if entry is None:
                await self._restore(launcher_id, kernel_id, nonce)
            elif isinstance(entry.record, Tombstone) and entry.record.nonce == nonce:
                await self._end(launcher_id, kernel_id)
        except (ProxyError, LauncherError, KeeperError, RecordError, WriteLost) as error:
            _log.info("a keeper without record stays", kernel=kernel_id, error=str(error))

    async def _restore(self, launcher_id: str, kernel_id: str, nonce: str) -> None:
        parts = self._parts
        target = parts.launchers.target(launcher_id)
        handle = await parts.launcher_client.find(target, kernel_id)
        if handle is None or not handle.alive or handle.nonce != nonce:
            return
        check_endpoint(target.url, handle)
        record = self._record(launcher_id, kernel_id, handle)
        claim_id = secrets.token_hex(8)
        token = await parts.writer.create(kernel_id, record, claim_id=claim_id)
        parts.ownership.created(kernel_id, claim_id, token)
        parts.timeline.note("record restored", kernel_id, f"found on {launcher_id}")
        _log.warning("record restored", kernel=kernel_id, launcher=launcher_id)

    def _record(self, launcher_id: str, kernel_id: str, handle: Handle) -> KernelRecord:
        """``running``: the keeper says itself what its kernel is; a death is found by asking it."""
        parts = self._parts
        if not (handle.user and handle.spec and handle.host and handle.credential and handle.nonce):
            raise LauncherError("the handle does not say whose kernel it is")
        path = parts.writer.key(kernel_id)
        return KernelRecord(
            spec_name=handle.spec,
            user=handle.user,
            launcher_id=launcher_id,
            nonce=handle.nonce,
            digest=body_digest({"spec": handle.spec, "path": None}),
            state=KernelState.RUNNING,
            changed=parts.clock.stamp(),
            sealed_launch=parts.sealer.seal(path, json.dumps({"env": {}, "path": None})),
            endpoint=Endpoint(host=handle.host, port=handle.port),
            fingerprint=handle.fingerprint,
            sealed_credential=parts.sealer.seal(path, handle.credential),
            epoch=handle.epoch,
            engine_handle=dict(handle.engine_handle),
            incarnation=1,
        )

    async def _end(self, launcher_id: str, kernel_id: str) -> None:
        parts = self._parts
        token = await parts.ownership.ensure(kernel_id)
        if not isinstance(token, Token):
            return
        guard = parts.leased_guard(kernel_id, token, None)
        try:
            target = parts.launchers.target(launcher_id)
            await parts.launcher_client.end(target, kernel_id, token, timeout=20.0, guard=guard)
            parts.timeline.note("deleted kernel ended", kernel_id, f"found on {launcher_id}")
        finally:
            await parts.ownership.release(kernel_id, token)


def _is_kernel_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
